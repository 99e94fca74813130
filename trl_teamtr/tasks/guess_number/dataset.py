"""Rows of guess-a-number, for a team that has to say the number, and for one that guesses through tools."""

import random
from collections.abc import Sequence

from datasets import Dataset

from .rules import IN_PLACE, Hint, all_hints, all_numbers, deal, secrets_that_need_talk


STYLES = ("text", "terse")
MAX_TRIES = 2000  # guesses are sampled so often before a setting without admissible rows is refused
WHERE = ("right and in the right place", "right but in the wrong place")


def make_dataset(
    size: int,
    seed: int,
    length: int = 3,
    alphabet: str = "012345",
    num_guesses: int = 4,
    agents: Sequence[str] = ("a", "b"),
    style: str = "text",
) -> Dataset:
    """
    Rows of guess-a-number: `prompt`, `secret`, `alphabet`, and with `num_guesses` above 0 `agent_prompts`, the pieces of
    feedback that each agent is told. Together they leave one number; an agent alone is right at most half of the time
    (`secrets_that_need_talk`).

    Args:
        size (`int`): Number of rows.
        seed (`int`): Seed of the numbers and the guesses.
        length (`int`): Number of digits.
        alphabet (`str`): The digits, each one character.
        num_guesses (`int`): Guesses whose feedback is told; 0 for rows of the environment
            [`~trl_teamtr.tasks.guess_number.environment.GuessNumber`], in which the team guesses.
        agents (`Sequence[str]`): Names of the agents, in the order in which the pieces are dealt.
        style (`str`): `"text"`, English; or `"terse"`, a few characters for tiny models: `12:1A` for one digit in the
            right place, `12:1B` for one in the wrong place.

    Raises:
        `ValueError`: If there is no such style, if there are fewer than two agents or more than pieces, or if no
            admissible guesses are found.
    """
    if style not in STYLES:
        raise ValueError(f"style={style!r} is not known. Choose one of {', '.join(STYLES)}.")
    if num_guesses and not 2 <= len(agents) <= 2 * num_guesses:
        raise ValueError(
            f"{num_guesses} guesses have {2 * num_guesses} pieces of feedback for 2 to {2 * num_guesses} agents, got "
            f"agents={list(agents)}."
        )
    rng, numbers = random.Random(seed), all_numbers(length, alphabet)
    rows: dict[str, list] = {"prompt": [], "secret": [], "alphabet": [alphabet] * size}
    if num_guesses:
        rows["agent_prompts"] = []
    for _ in range(size):
        secret = rng.choice(numbers)
        if num_guesses:
            secret, hints = _draw(rng, numbers, num_guesses, len(agents))
            told = deal(hints, len(agents))
            rows["agent_prompts"].append({name: _tell(own, style) for name, own in zip(agents, told, strict=True)})
        rows["prompt"].append([{"role": "user", "content": _task(length, alphabet, num_guesses, style)}])
        rows["secret"].append(secret)
    return Dataset.from_dict(rows)


def _draw(rng: random.Random, numbers: list[str], num_guesses: int, num_agents: int) -> tuple[str, list[Hint]]:
    """A secret that needs talk, and the hints: guesses first, then the secret uniformly among those that they allow."""
    if num_guesses <= len(numbers):
        for _ in range(MAX_TRIES):
            guesses = rng.sample(numbers, num_guesses)
            if secrets := secrets_that_need_talk(numbers, guesses, num_agents):
                secret = rng.choice(secrets)
                return secret, all_hints(secret, guesses)
    raise ValueError(
        f"No {num_guesses} guesses at one of {len(numbers)} numbers were found that {num_agents} agents can only put "
        f"together by talking, in {MAX_TRIES} tries. Take more guesses, shorter numbers or fewer symbols."
    )


def _tell(hints: Sequence[Hint], style: str) -> str:
    if style == "terse":
        return " ".join(f"{h.guess}:{h.digits}{'A' if h.kind == IN_PLACE else 'B'}" for h in hints)
    return "\n".join(
        f"Guess {h.guess}: {h.digits} {'digit is' if h.digits == 1 else 'digits are'} {WHERE[h.kind]}." for h in hints
    )


def _task(length: int, alphabet: str, num_guesses: int, style: str) -> str:
    if style == "terse":
        return "?"
    number = f"A secret number has {length} different digits out of {alphabet}."
    if not num_guesses:
        return f"{number} Find it."
    return (
        f"{number} It was guessed at {num_guesses} times. Each of you was told a part of the feedback; only together "
        "do you know the number. Tell the others what they need. The last message must end with the number."
    )
