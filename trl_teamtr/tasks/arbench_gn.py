"""AR-Bench's guess-a-number: four distinct digits, found in 25 guesses (Bulls and Cows)."""

from typing import Any

from datasets import Dataset

from .answers import final_text
from .guess_number.dataset import make_dataset as make_guess_number
from .guess_number.environment import GuessNumber
from .guess_number.reward import guess_number_reward
from .published import Row, Source


LENGTH, DIGITS, MAX_GUESSES = 4, "0123456789", 25


def _unpack(content: Any, path: str) -> list[Row]:
    """The repository's file is a list of numbers."""
    return [{"number": each} if isinstance(each, str) else each for each in content]


SOURCE = Source(
    "arbench_gn",
    "https://github.com/tmlr-group/AR-Bench",
    ("number",),
    licence="not stated in the repository",
    split=None,
    files=("data/gn/test.json",),
    unpack=_unpack,
)


class NumberGame(GuessNumber):
    """[`GuessNumber`] with AR-Bench's 25 guesses. Give all agents both ways of hearing, or split them (docs/worlds.md)."""

    def __init__(self):
        super().__init__(MAX_GUESSES)


def make_dataset(dataset_path: str | None = None, revision: str | None = None) -> Dataset:
    """
    Rows of [`NumberGame`]: `prompt`, `secret` and `alphabet`. The arguments are those of
    [`~trl_teamtr.tasks.published.Source.read`].

    Raises:
        `ValueError`: If a number does not have four distinct digits.
    """
    numbers = [row["number"] for row in SOURCE.read(dataset_path, revision)]
    for number in numbers:
        if len(number) != LENGTH or len(set(number)) != LENGTH or not set(number) <= set(DIGITS):
            raise ValueError(f"A number of {SOURCE.name} has {LENGTH} distinct digits, got {number!r}.")
    rows = make_guess_number(len(numbers), 0, LENGTH, DIGITS, num_guesses=0)
    return rows.remove_columns("secret").add_column("secret", numbers)


def reward(completions: list, secret: list[str], alphabet: list[str], **kwargs: Any) -> list[float]:
    """1 where the last four-digit number in the team's last message is the secret one, else 0."""
    return guess_number_reward([final_text(said) for said in completions], secret, alphabet)
