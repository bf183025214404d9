"""The paper in miniature: procedural pictures, a tiny Qwen2.5-VL, its base checkpoint, the demo."""
