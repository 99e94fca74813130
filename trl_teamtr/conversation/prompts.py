"""What a prompt must be."""

import reprlib
from typing import Any


def check_prompt(prompt: Any):
    """
    Raise unless `prompt` is text, or a conversation that a team can continue.

    Raises:
        `ValueError`: Says what is wrong with it, and what a prompt must be.
    """
    fault = None if isinstance(prompt, str) else _find_fault(prompt)
    if fault is not None:
        raise ValueError(
            f"{fault}. A prompt is a string, or a list of turns such as {{'role': 'user', 'content': '...'}}, of which the "
            f"first, or the first after a system turn, is the user's. Got {reprlib.repr(prompt)}."
        )


def _find_fault(prompt: Any) -> str | None:
    if prompt is None:
        return "it has no prompt"
    if not isinstance(prompt, list):
        return f"its prompt is of type {type(prompt).__name__}"
    if not prompt:
        return "its prompt has no turns"
    for number, turn in enumerate(prompt):
        if not isinstance(turn, dict) or not isinstance(turn.get("role"), str):
            return f"turn {number} of its prompt has no 'role'"
        if not isinstance(turn.get("content"), str):
            return f"turn {number} of its prompt has structured content or none, but teams read text only"
    others = prompt[1:] if prompt[0]["role"] == "system" else prompt
    if not others:
        return "its prompt is a system turn alone"
    if others[0]["role"] == "assistant":
        return "its prompt begins with an assistant turn"
    return None
