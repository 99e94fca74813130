"""The scorer of tasks whose answer is an expression: math-verify, through TRL's `accuracy_reward`."""

import re
from typing import Any

from trl.rewards import accuracy_reward

from .answers import final_text


_BOX = "\\boxed"
# Arguments of one digit, which LaTeX lets stand without braces, and math-verify not
_FRACTION = re.compile(r"\\([dt]?frac)\s*(\{[^{}]*\}|\d)\s*(\{[^{}]*\}|\d)")

INSTRUCTION = "Put the final answer in \\boxed{}."


def math_reward(completions: list, answer: list[str], **kwargs: Any) -> list[float | None]:
    """
    1 where the answer in a message is equivalent to the reference, else 0. An answer is in LaTeX: in `\\boxed{}`, of which the
    last one counts, or between dollars. One that stands within thoughts is none.

    Args:
        completions (`list`): The answers of the team.
        answer (`list[str]`): The references, LaTeX without delimiters.

    Returns:
        `list[float | None]`: `None` where math-verify cannot read the reference.

    Raises:
        `ImportError`: If math-verify is not installed.
    """
    said = [[{"content": _last_answer(final_text(completion))}] for completion in completions]
    return accuracy_reward(said, [f"{_BOX}{{{_with_braces(reference)}}}" for reference in answer])


def _last_answer(text: str) -> str:
    """`text` from its last box on, of which math-verify would take the first; all of it if there is none."""
    return _with_braces(text[max(text.rfind(_BOX), 0) :])


def _with_braces(latex: str) -> str:
    """`latex` with braces around both arguments of each fraction."""
    return _FRACTION.sub(lambda found: f"\\{found[1]}{{{found[2].strip('{}')}}}{{{found[3].strip('{}')}}}", latex)


def read_answer(text: str, row: dict[str, Any]) -> str:
    """The expression in a message as math-verify reads it; empty if there is none."""
    from math_verify import parse  # not installed with this package

    found = parse(_last_answer(final_text(text)), extraction_mode="first_match", parsing_timeout=None)
    return str(found[0]) if found else ""
