"""LFPC: teach a vision-language model to crop large pictures and to look at what it cropped (arXiv
2603.27494).
"""

__version__ = "0.1.0"
