"""
The models that benchmarks/guess_number_tools.py starts from: they can play guess-a-number with its tools, and play carelessly.

Scripted agents play it (benchmarks/scripted.py) for two digits of four with three guesses. In the team `a` guesses, hears how many
digits are in place and tells it; `b` hears how many are misplaced, makes the guess that tells most, hears again and tells both counts;
`a` hears again and makes the last guess. Who is alone does the same with what it hears itself. One base, the same for all seeds,
learns both. For each seed each agent is then fine-tuned on its parts played carelessly: seven times of ten it tells a 0 without
looking, or guesses the next number in order.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from scripted import Game, call, read_view, save_base, save_start

from trl_teamtr.tasks.guess_number.environment import IN_PLACE_TOOLS, MISPLACED_TOOLS, GuessNumber
from trl_teamtr.tasks.guess_number.rules import IN_PLACE, MISPLACED, Hint, all_numbers, candidates, feedback


TASK = {"length": 2, "alphabet": "0123", "num_guesses": 0, "style": "terse"}
NUMBERS = all_numbers(2, "0123")
GUESSES = 3
END, ALONE = "done", "alone"
CARELESS = 0.7
SHOWN, BATCH, BASE_STEPS, CARELESS_SHOWN, CARELESS_STEPS = 1200, 32, 300, 1000, 25
WORDS = [
    *dict.fromkeys([*IN_PLACE_TOOLS, *MISPLACED_TOOLS]),
    *("You have 3 guesses.", " is wrong. ", " guesses are left.", " is the number.", "There was no guess yet."),
    *("There are no guesses left.", END, ALONE),
]


def read_counts(heard: str, kind: int) -> list[Hint]:
    """What was heard of each guess."""
    return [Hint(line[:2], kind, int(line[-1])) for line in heard.split("\n")]


def choose(hints: list[Hint], kinds: tuple[int, ...]) -> str:
    """The guess after which counts of `kinds` leave fewest numbers, if possible one that may be right."""
    left = candidates(NUMBERS, hints)

    def value(guess: str) -> tuple[int, bool]:
        return len({tuple(feedback(number, guess)[kind] for kind in kinds) for number in left}), guess in left

    return max(NUMBERS, key=value)


def guess(number: str, overlooks: Callable[[], bool]) -> str:
    """A call that guesses `number`, or the first one after 01 if that is overlooked."""
    return call("guess", NUMBERS[1] if overlooks() else number)


def act_as_a(text: str, overlooks: Callable[[], bool]) -> str:
    """What `a` writes next."""
    told, results = read_view(text)
    if "guess" not in results and len(told) == 1:
        return call("guess", NUMBERS[0])
    if len(told) > 1 and "guess" in results or results.get("guess", "").endswith("is the number."):
        return END
    if "hear_in_place" not in results:
        return call("hear_in_place")
    hints = read_counts(results["hear_in_place"], IN_PLACE)
    if len(told) == 1:
        return "0" if overlooks() else str(hints[0].digits)
    told_of = [hint._replace(kind=MISPLACED, digits=int(count)) for hint, count in zip(hints, told[-1], strict=False)]
    return guess((candidates(NUMBERS, hints + told_of) or NUMBERS)[0], overlooks)


def act_as_b(text: str, overlooks: Callable[[], bool]) -> str:
    """What `b` writes next."""
    told, results = read_view(text)
    if results.get("guess", "").endswith("is the number."):
        return END
    if not results or list(results)[-1] == "guess":
        return call("hear_misplaced")
    hints = read_counts(results["hear_misplaced"], MISPLACED)
    if "guess" in results:
        return "".join("0" if overlooks() else str(hint.digits) for hint in hints)
    told_of = [hints[0]._replace(kind=IN_PLACE, digits=int(told[-1]))]
    return guess(choose(hints + told_of, (IN_PLACE, MISPLACED)), overlooks)


def act_alone(text: str, overlooks: Callable[[], bool]) -> str:
    """What `a` writes next if there is nobody else."""
    _, results = read_view(text)
    if not results:
        return call("guess", NUMBERS[0])
    if results["guess"].endswith(("is the number.", " 0 guesses are left.")):
        return END
    if list(results)[-1] == "guess":
        return call("hear_in_place")
    return guess(choose(read_counts(results["hear_in_place"], IN_PLACE), (IN_PLACE,)), overlooks)


_MAKE = partial(GuessNumber, GUESSES)
GAMES = {
    "team": Game(
        tools={"a": IN_PLACE_TOOLS, "b": MISPLACED_TOOLS},
        acts={"a": act_as_a, "b": act_as_b},
        words=WORDS,
        environment=_MAKE,
        turns={"max_turns": 3, "stop_string": END},
        calls=6,
    ),
    "alone": Game(
        tools={"a": IN_PLACE_TOOLS},
        acts={"a": act_alone},
        words=WORDS,
        environment=_MAKE,
        turns={"max_turns": 1},
        calls=6,
    ),
}


def as_played(arm: str, rows: list[dict]) -> list[dict]:
    """Rows for an arm: who is alone is told so."""
    return [row | {"agent_prompts": {"a": ALONE if arm == "alone" else None}} for row in rows]


def share_solved(rollouts) -> float:
    """Mean reward of rollouts."""
    rewards = [transcript.world.team.get_reward() for transcript in rollouts.transcripts]
    return sum(rewards) / len(rewards)


def save_models(folder: Path, rows: list[dict], seed: int, size: str):
    """Save the base, and the models of `a` and `b` of a seed, unless they are there."""
    from datasets import concatenate_datasets

    tokenizer, trains = GAMES["team"].make_tokenizer(), size != "smoke"

    def demonstrate(names: tuple[str, ...], shown: int, careless: float, number: int):
        """Of both games, for those who play them."""
        played = [
            game.make_demonstrations(as_played(arm, rows[:shown]), own, careless, number)
            for arm, game in GAMES.items()
            if (own := tuple(name for name in names if name in game.tools))
        ]
        return concatenate_datasets(played).shuffle(number)

    save_base(folder / "base", tokenizer, lambda: demonstrate(("a", "b"), SHOWN, 0.0, 0), trains * BASE_STEPS, BATCH)
    parts = {
        name: partial(demonstrate, (name,), CARELESS_SHOWN, CARELESS, seed + 1000 * (i + 1))
        for i, name in enumerate(("a", "b"))
    }
    save_start(folder / f"team_{seed}", folder / "base", tokenizer, parts, trains * CARELESS_STEPS, BATCH, seed)
