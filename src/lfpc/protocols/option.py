"""`--protocol` of the command line: a name or a file."""

from collections.abc import Sequence

from lfpc.options import UNSET, word_option
from lfpc.protocols import ProtocolFile, protocol_given


def _read(words: Sequence[str]) -> str | ProtocolFile:
    return protocol_given(words[0])


PROTOCOL_OPTION = word_option(
    _read,
    lambda protocol: [UNSET if protocol is None else str(protocol)],
    metavar="NAME|FILE.toml",
    nargs=1,
)
