"""Texts that a chat template or a server takes as they are. Torch-free."""

import re

NOT_SAMPLED = (
    "<|image_pad|>",
    "<|video_pad|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
)
"""Tokens that a policy may not write, because they stand for pictures."""
_PICTURE_TOKEN = re.compile("|".join(map(re.escape, NOT_SAMPLED)))


def valid_text(text: str) -> str:
    """`text` with halves of surrogate pairs, which cannot be sent, replaced by U+FFFD."""
    return (
        text
        if text.isascii()
        else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    )


def harmless_text(text: str) -> str:
    """Text from outside with control tokens broken up."""
    return text.replace("\0", "").replace("<|", "< |")


def harmless_reply(text: str) -> str:
    """A reply as it is sent back: unchanged, but for tokens that stand for pictures, which are
    broken up.
    """
    return _PICTURE_TOKEN.sub(lambda found: harmless_text(found[0]), text)
