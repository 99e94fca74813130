"""What of a message is its answer: the text after the thoughts, and the last JSON in it."""

import json
from typing import Any


_OPENING, _ENDING = "<think>", "</think>"


def final_text(completion: Any) -> str:
    """
    The last message of a completion without its thoughts: what follows the last `</think>`; nothing if a thought is not ended.

    Args:
        completion (`str` or `list[dict]`): As a reward function gets it.
    """
    text = completion if isinstance(completion, str) else completion[-1]["content"]
    before, ended, after = text.rpartition(_ENDING)
    return (after if ended else before or after).partition(_OPENING)[0]


def last_json(text: str) -> Any:
    """The last complete JSON object in `text` that is not a part of another; `None` if there is none."""
    decoder, found, place = json.JSONDecoder(), None, text.find("{")
    while place >= 0:
        try:
            found, end = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            end = place + 1
        place = text.find("{", end)
    return found
