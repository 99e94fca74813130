"""
The rules: a secret number of distinct digits. The feedback to a guess counts the digits that are right and in the right
place, and the digits that are right but in another place.

A piece of feedback is one of the two counts of one guess. The pieces are dealt to the agents in turn: of two agents one
hears every first count, the other every second.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import permutations
from typing import NamedTuple


IN_PLACE, MISPLACED = 0, 1


class Hint(NamedTuple):
    """One piece of feedback: so many `digits` of `guess` are right, `kind` says where (`IN_PLACE` or `MISPLACED`)."""

    guess: str
    kind: int
    digits: int


def all_numbers(length: int, alphabet: str) -> list[str]:
    """
    The numbers of `length` distinct symbols of `alphabet`.

    Raises:
        `ValueError`: If `alphabet` repeats a symbol, or has fewer than `length`.
    """
    if len(set(alphabet)) != len(alphabet) or not 1 <= length <= len(alphabet):
        raise ValueError(
            f"A number has 1 to {len(set(alphabet))} distinct symbols of {alphabet!r}, got length={length}. Name each "
            "symbol of the alphabet once, and take no longer numbers than that."
        )
    return ["".join(number) for number in permutations(alphabet, length)]


def feedback(secret: str, guess: str) -> tuple[int, int]:
    """How many symbols of `guess` are in `secret` in the same place, and how many in another place."""
    in_place = sum(a == b for a, b in zip(secret, guess, strict=True))
    return in_place, len(set(secret) & set(guess)) - in_place


def all_hints(secret: str, guesses: Iterable[str]) -> list[Hint]:
    """Both counts of each guess, in the order of the guesses."""
    return [Hint(guess, kind, count) for guess in guesses for kind, count in enumerate(feedback(secret, guess))]


def deal(hints: Sequence[Hint], num_agents: int) -> list[Sequence[Hint]]:
    """The pieces that each agent is told: the i-th goes to agent i modulo their number."""
    return [hints[i::num_agents] for i in range(num_agents)]


def candidates(numbers: Iterable[str], hints: Iterable[Hint]) -> list[str]:
    """Those of `numbers` that fit all hints."""
    hints = list(hints)
    return [number for number in numbers if all(feedback(number, h.guess)[h.kind] == h.digits for h in hints)]


def secrets_that_need_talk(numbers: Sequence[str], guesses: Sequence[str], num_agents: int) -> list[str]:
    """
    The secrets that all hints of `guesses` together tell from every other number, and that no agent's own hints tell from
    the rest of what is returned. So among secrets drawn uniformly from these, an agent that hears nothing from the others,
    even if it knows how they are drawn, is right at most half of the time.

    Args:
        numbers (`Sequence[str]`): All numbers.
        guesses (`Sequence[str]`): The guesses.
        num_agents (`int`): Number of agents to which the hints are dealt.
    """
    told = {number: tuple(all_hints(number, guesses)) for number in numbers}
    times = Counter(told.values())
    kept = [number for number in numbers if times[told[number]] == 1]
    while True:
        own = Counter((agent, part) for number in kept for agent, part in enumerate(deal(told[number], num_agents)))
        still = [
            number
            for number in kept
            if all(own[agent, part] > 1 for agent, part in enumerate(deal(told[number], num_agents)))
        ]
        if len(still) == len(kept):
            return kept
        kept = still
