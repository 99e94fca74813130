from collections import defaultdict
from functools import cache
from inspect import getmembers, isfunction

import pytest
from transformers.utils import get_json_schema

from trl_teamtr.tasks.guess_number.environment import IN_PLACE_TOOLS, MISPLACED_TOOLS, GuessNumber
from trl_teamtr.tasks.guess_number.rules import IN_PLACE, MISPLACED, Hint, all_numbers, candidates, feedback


ROW = {"prompt": "?", "secret": "12", "alphabet": "0123"}


def begin(max_guesses=4, **row):
    world = GuessNumber(max_guesses)
    assert f"{max_guesses} guesses" in world.reset(**(ROW | row))
    return world


def test_tools_are_those_of_trl_and_have_schemas():
    tools = [
        name
        for name, _ in getmembers(GuessNumber, isfunction)
        if name not in ("reset", "get_reward") and name[0] != "_"
    ]
    assert set(tools) == {*IN_PLACE_TOOLS, *MISPLACED_TOOLS}
    for name in tools:
        schema = get_json_schema(getattr(GuessNumber(), name))["function"]
        assert schema["name"] == name and schema["description"]
    assert list(get_json_schema(GuessNumber().guess)["function"]["parameters"]["properties"]) == ["number"]


def test_each_tool_tells_its_count():
    world = begin()
    assert world.hear_in_place() == world.hear_misplaced() == "There was no guess yet."
    assert world.guess("13") == "13 is wrong. 3 guesses are left."
    world.guess("20")
    assert world.hear_in_place() == "13: 1\n20: 0" and world.hear_misplaced() == "13: 0\n20: 1"
    assert world.get_reward() == 0.0
    assert world.guess("12") == "12 is the number." and world.get_reward() == 1.0
    assert "found already" in world.guess("13") and world.get_reward() == 1.0


@pytest.mark.parametrize("number", ["1", "123", "11", "14", ""])
def test_what_is_no_number_is_refused_and_costs_nothing(number):
    world = begin(max_guesses=1)
    with pytest.raises(ValueError, match="2 different digits out of 0123"):
        world.guess(number)
    assert world.guess("12") == "12 is the number."


def test_no_guess_after_the_last():
    world = begin(max_guesses=1)
    world.guess("13")
    with pytest.raises(ValueError, match="no guesses left"):
        world.guess("12")
    assert world.get_reward() == 0.0


def test_reset_begins_anew_and_calls_have_the_same_results_again():
    world, results = begin(), []
    for _ in range(2):
        world.reset(**ROW)
        results.append([world.guess("13"), world.guess("20"), world.hear_in_place(), world.get_reward()])
    assert results[0] == results[1]


@pytest.mark.parametrize("secret", all_numbers(2, "0123"))
def test_pair_that_tells_each_other_finds_the_number(secret):
    world, numbers, guesses = begin(max_guesses=3, secret=secret), all_numbers(2, "0123"), []
    while world.get_reward() == 0.0:
        told = {}
        for kind, heard in ((IN_PLACE, world.hear_in_place()), (MISPLACED, world.hear_misplaced())):
            told[kind] = [line.split(": ") for line in heard.split("\n")] if guesses else []
        hints = [Hint(guess, kind, int(count)) for kind, counts in told.items() for guess, count in counts]
        guesses.append(candidates(numbers, hints)[0])
        world.guess(guesses[-1])


def best_share(numbers: list[str], max_guesses: int, kinds: tuple[int, ...]) -> float:
    """The share of all secrets that the best strategy finds, by enumeration, if it hears the counts of `kinds`."""

    @cache
    def found(left: frozenset[str], guesses: int) -> int:
        if not left or not guesses:
            return 0
        values = []
        for guess in numbers:
            parts = defaultdict(set)
            for secret in left - {guess}:
                parts[tuple(feedback(secret, guess)[kind] for kind in kinds)].add(secret)
            values.append((guess in left) + sum(found(frozenset(part), guesses - 1) for part in parts.values()))
        return max(values)

    return found(frozenset(numbers), max_guesses) / len(numbers)


def test_one_count_is_not_enough_and_both_are():
    numbers = all_numbers(2, "0123")
    in_place, misplaced, both = (best_share(numbers, 3, kinds) for kinds in ((0,), (1,), (0, 1)))
    print(f"2 of 0123, 3 guesses: in place {in_place:.3f}, misplaced {misplaced:.3f}, both {both:.3f}")
    assert both == 1.0 and in_place < 0.8 and misplaced < 0.8
