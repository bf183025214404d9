"""The miniature world: procedural pictures, a tiny Qwen2.5-VL, and the base checkpoint the demo
starts from.
"""
