"""Rows of the service desk."""

import random
from collections.abc import Sequence
from typing import Any

from datasets import Dataset

from .cases import FAULTS, QUESTIONS, all_phone_numbers, dump_case, make_case


TASK = [{"role": "user", "content": "A customer calls the service desk of a phone company."}]
TERSE = [{"role": "user", "content": "?"}]
ASSISTANT = (
    "You are the assistant. Look up the customer's account, do what it needs, and tell the customer what to do on the "
    "phone. Change nothing that is in order."
)
USER = "You are the customer. {scenario} Do on your phone what the assistant asks for."


STYLES = ("text", "terse")


def make_dataset(
    size: int,
    seed: int,
    num_accounts: int = 4,
    faults: Sequence[str] = FAULTS,
    questions: Sequence[str] = tuple(QUESTIONS),
    digits: int = 3,
    style: str = "text",
) -> Dataset:
    """
    Rows of the service desk: `prompt`, `agent_prompts` (of `assistant` and `user`) and `case`, the case as text for
    [`~trl_teamtr.tasks.service_desk.environment.ServiceDesk`] and the reward. Each fault is in half of the cases, and each
    question, or none, is asked as often as the others; by default nothing is to be done in one case of 24.

    Args:
        size (`int`): Number of rows.
        seed (`int`): Seed of the cases.
        num_accounts (`int`): Accounts in each database.
        faults (`Sequence[str]`): Faults that there may be: `"bill"`, `"airplane"`, `"roaming"`.
        questions (`Sequence[str]`): Questions that there may be: `"plan"`, `"data"`.
        digits (`int`): Digits of the phones' numbers.
        style (`str`): `"text"`, English; or `"terse"` for tiny models: the user is told the number and the question, as
            `123 plan`, and nobody anything else.

    Raises:
        `ValueError`: If there is no such style, fault or question, or if the numbers are too few for the accounts.
    """
    most = len(all_phone_numbers(digits)) if digits > 0 else 0
    if not 2 <= num_accounts <= most:
        raise ValueError(f"With digits={digits} a database has 2 to {most} accounts, got num_accounts={num_accounts}.")
    for name, given, known in (
        ("style", [style], STYLES),
        ("faults", faults, FAULTS),
        ("questions", questions, tuple(QUESTIONS)),
    ):
        if unknown := sorted(set(given) - set(known)):
            raise ValueError(f"{name}: {', '.join(unknown)} is not known. Choose from {', '.join(known)}.")
    rng, cases = random.Random(seed), []
    for _ in range(size):
        own = [fault for fault in faults if rng.random() < 0.5]
        cases.append(make_case(rng, own, rng.choice([None, *questions]), num_accounts, digits))
    return Dataset.from_dict(
        {
            "prompt": [TASK if style == "text" else TERSE] * size,
            "agent_prompts": [_tell(case, style) for case in cases],
            "case": [dump_case(case) for case in cases],
        }
    )


def _tell(case: dict[str, Any], style: str) -> dict[str, str]:
    """What each party is told."""
    if style == "terse":
        return {"user": " ".join([case["number"], *([case["question"]] if case["question"] else [])])}
    return {"assistant": ASSISTANT, "user": USER.format(scenario=case["scenario"])}
