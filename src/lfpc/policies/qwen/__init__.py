"""The engine for Qwen-VL checkpoints: tokens, positions, vision, sampling."""
