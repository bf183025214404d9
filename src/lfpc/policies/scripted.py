"""A policy with scripted replies, for tests and for replays."""

from collections.abc import Callable, Sequence

from lfpc.dialogue import Context, Reply

Script = Callable[[Context], str] | Sequence[str]
"""Replies: a function of the context, or one text per turn (the last one repeats)."""


class ScriptedPolicy:
    """Replies from a script, without tokens."""

    def __init__(self, script: Script) -> None:
        """Args: script: a function of the context, or the texts of turn 0, 1, ... of every
        episode.
        """
        if not callable(script) and not script:
            raise ValueError("a script needs at least one text")
        self._script = script

    def reply(self, contexts: Sequence[Context]) -> list[Reply]:
        """One reply per context, in the same order."""
        return [Reply(self._text(context)) for context in contexts]

    def _text(self, context: Context) -> str:
        if callable(self._script):
            return self._script(context)
        return self._script[min(len(context.turns), len(self._script) - 1)]
