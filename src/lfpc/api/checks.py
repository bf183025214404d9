"""Checks of arguments."""

from numbers import Integral
from typing import Any, TypeVar

from lfpc.errors import ConfigError
from lfpc.storage.typed import config_from_plain, plain

C = TypeVar("C")


def checked(cls: type[C], **values: Any) -> C:
    """The configuration with these values, checked for their types too.

    Raises:
        ConfigError: an unknown field, or a wrong value.
    """
    return config_from_plain(cls, plain(values), "")


def check_policy(policy: Any) -> None:
    """Raises: ConfigError: not a policy with a model."""
    if not hasattr(policy, "reply") or not hasattr(policy, "config"):
        raise ConfigError(
            f"the policy must be the result of lfpc.load_policy or lfpc.served_policy, got "
            f"{policy!r}"
        )


def check_whole(name: str, value: Any, least: int, *, optional: bool = False) -> None:
    """Raises: ConfigError: not a whole number of `least` or more."""
    if optional and value is None:
        return
    if isinstance(value, list | tuple):
        raise ConfigError(f"`{name}` is one whole number, got {value!r}; call once for each")
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise ConfigError(f"`{name}` must be a whole number, got {value!r}")
    if int(value) < least:
        raise ConfigError(f"`{name}` must be at least {least}, got {value}")
