"""Settings in messages as they are typed: `max_new_tokens`, their Python name, becomes
--max-new-tokens.
"""

import re
from collections.abc import Sequence

_SETTING = re.compile(r"`([a-z]\w*(?:\.[a-z]\w*)*)(?:\[\d+\])*`")
_OTHER_NAMES = {
    "timeout_s": "--timeout",
    "crop.min_tokens": "--crop-tokens",
    "crop.max_tokens": "--crop-tokens",
    "probe": "--probes",
    "task": "--tasks",
}
"""Options with another name than their setting."""


def as_typed(sentence: str, words: Sequence[str] = ()) -> str:
    """`sentence` with its settings as the options of the command `words`."""

    def option(found: re.Match[str]) -> str:
        name = found.group(1)
        if name == "model" and "--checkpoint" in words:
            return "--checkpoint"
        if name.startswith("crop.") and "train" in words[:1]:
            return "--" + name.replace("_", "-")
        if name.startswith("protocol."):
            return f"{name.removeprefix('protocol.')} of --protocol"
        if name in _OTHER_NAMES:
            return _OTHER_NAMES[name]
        return "--" + name.removeprefix("sampling.").replace("_", "-")

    return _SETTING.sub(option, sentence)
