"""The scorer of guess-a-number without tools: whether the team said the number."""

import re


def extract_number(text: str, length: int, alphabet: str) -> str | None:
    """The last word of `text` that consists of `length` symbols of `alphabet`; `None` if there is none."""
    words = [word for word in re.findall(r"\w+", text) if len(word) == length and set(word) <= set(alphabet)]
    return words[-1] if words else None


def guess_number_reward(completions: list, secret: list[str], alphabet: list[str], **kwargs) -> list[float]:
    """1 where the last number in the team's last message is the secret one, else 0."""
    rewards = []
    for completion, number, symbols in zip(completions, secret, alphabet, strict=True):
        text = completion if isinstance(completion, str) else completion[-1]["content"]
        rewards.append(float(extract_number(text, len(number), symbols) == number))
    return rewards
