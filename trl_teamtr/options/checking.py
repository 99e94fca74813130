"""The checks that reject a wrong setting."""

from collections.abc import Sequence
from typing import Any


def check(ok: bool, message: str):
    """Raise `ValueError` with `message` unless `ok`."""
    if not ok:
        raise ValueError(message)


def check_choice(args: Any, name: str, choices: Sequence[str]):
    """Raise `ValueError` unless the option `name` of `args` is one of `choices`."""
    value = getattr(args, name)
    check(value in choices, f"`{name}` is {value!r}; it must be one of {', '.join(map(repr, choices))}.")
