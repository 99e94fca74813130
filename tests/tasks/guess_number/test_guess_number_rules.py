from collections import Counter, defaultdict
from itertools import permutations

import pytest

from trl_teamtr.tasks.guess_number.rules import (
    IN_PLACE,
    MISPLACED,
    Hint,
    all_hints,
    all_numbers,
    candidates,
    deal,
    feedback,
    secrets_that_need_talk,
)


@pytest.mark.parametrize(
    "secret, guess, counts",
    [
        ("1234", "1234", (4, 0)),
        ("1234", "4321", (0, 4)),
        ("1234", "1243", (2, 2)),
        ("1234", "5678", (0, 0)),
        ("1234", "1567", (1, 0)),
        ("1234", "5167", (0, 1)),
        ("0123", "9073", (1, 1)),
    ],
)
def test_feedback(secret, guess, counts):
    assert feedback(secret, guess) == counts


def test_numbers_have_distinct_symbols():
    numbers = all_numbers(3, "01234")
    assert len(numbers) == len(set(numbers)) == 5 * 4 * 3
    assert all(len(set(number)) == 3 for number in numbers)


@pytest.mark.parametrize("length, alphabet", [(0, "01"), (3, "01"), (2, "001")])
def test_impossible_numbers_are_refused(length, alphabet):
    with pytest.raises(ValueError, match="distinct symbols"):
        all_numbers(length, alphabet)


def test_of_two_agents_each_hears_one_of_the_counts():
    hints = all_hints("12", ["10", "23"])
    assert hints == [Hint("10", 0, 1), Hint("10", 1, 0), Hint("23", 0, 0), Hint("23", 1, 1)]
    first, second = deal(hints, 2)
    assert {hint.kind for hint in first} == {IN_PLACE} and {hint.kind for hint in second} == {MISPLACED}
    assert [len(own) for own in deal(hints, 3)] == [2, 1, 1]


def test_candidates_are_those_that_fit_every_hint():
    numbers = all_numbers(2, "0123")
    assert candidates(numbers, [Hint("01", IN_PLACE, 1), Hint("01", MISPLACED, 0)]) == ["02", "03", "21", "31"]
    assert candidates(numbers, all_hints("20", ["20"])) == ["20"]


def best_accuracies(length: int, alphabet: str, num_guesses: int, num_agents: int) -> tuple[list[float], float]:
    """
    By enumeration of all guesses and secrets of a setting, each as likely as the generator makes it: how often an agent
    can be right that knows its own hints and how rows are drawn, for each agent; and one that knows all hints.
    """
    numbers, rows = all_numbers(length, alphabet), []
    for guesses in permutations(numbers, num_guesses):
        secrets = secrets_that_need_talk(numbers, guesses, num_agents)
        rows += [(secret, all_hints(secret, guesses), 1 / len(secrets)) for secret in secrets]

    def best(read) -> float:
        """The most likely secret, given what `read` keeps of the hints."""
        weights: dict[tuple, Counter] = defaultdict(Counter)
        for secret, hints, weight in rows:
            weights[tuple(read(hints))][secret] += weight
        return sum(max(each.values()) for each in weights.values()) / sum(weight for _, _, weight in rows)

    return [best(lambda hints, i=i: deal(hints, num_agents)[i]) for i in range(num_agents)], best(lambda hints: hints)


@pytest.mark.parametrize(
    "length, alphabet, num_guesses, num_agents",
    [(2, "0123", 2, 2), (2, "01234", 3, 2), (2, "0123", 2, 3), (3, "0123", 3, 2)],
)
def test_no_agent_alone_knows_the_number_and_all_together_do(length, alphabet, num_guesses, num_agents):
    alone, together = best_accuracies(length, alphabet, num_guesses, num_agents)
    print(
        f"{length} of {alphabet}, {num_guesses} guesses: alone {[round(a, 4) for a in alone]}, together {together:.4f}"
    )
    assert together == pytest.approx(1.0)
    assert len(alone) == num_agents and all(0.0 < accuracy < 0.5 + 1e-9 for accuracy in alone)


def test_filter_that_tells_the_number_is_not_used():
    """Rows that are only filtered by candidates tell a lone agent the number: it knows which secrets are filtered out."""
    numbers = all_numbers(2, "01234")
    for guesses in permutations(numbers, 2):
        assert secrets_that_need_talk(numbers, guesses, 2) == []
