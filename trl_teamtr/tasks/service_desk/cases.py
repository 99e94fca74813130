"""
Cases of the service desk: a database before the conversation, what the user knows and wants, and the calls that solve it.

A phone is out of order for up to three independent reasons. Each needs another pattern of control: the bill is paid by the
user, but sent, and its line resumed, by the assistant; airplane mode is the user's alone; roaming has to be allowed by the
assistant *and* turned on by the user. Only the user knows the number of the phone, only the assistant sees the account.
"""

import json
import random
from collections.abc import Sequence
from typing import Any, NamedTuple


FAULTS = ("bill", "airplane", "roaming")
QUESTIONS = {
    "plan": "You also want to know the name of your plan.",
    "data": "You also want to know how many gigabytes you have left.",
}
PLANS = ("basic", "family", "student", "travel")


class Call(NamedTuple):
    """A call of the tool `name` by `party`, `"assistant"` or `"user"`."""

    party: str
    name: str
    arguments: dict[str, str]


def make_case(
    rng: random.Random, faults: Sequence[str], question: str | None, num_accounts: int, digits: int = 3
) -> dict[str, Any]:
    """
    One case.

    Args:
        rng (`random.Random`): What names, numbers and plans are drawn from.
        faults (`Sequence[str]`): Some of `FAULTS`.
        question (`str`, *optional*): One of `QUESTIONS`.
        num_accounts (`int`): Accounts in the database, of which the user has one.
        digits (`int`): Digits of the numbers.

    Returns:
        `dict` with `number` (the user's), `database`, `reference` (calls as lists, in order), `required` (texts that the
        assistant has to say), `scenario` (what the user knows and wants) and `question`.
    """
    numbers = [str(number) for number in rng.sample(all_phone_numbers(digits), num_accounts)]
    data = rng.sample(range(10, 10 + 3 * num_accounts), num_accounts)  # no two accounts have the same
    plans = [rng.choice(PLANS) for _ in numbers]
    accounts = {
        number: {"plan": plan, "data_left": left, "bill": "none", "line": "active", "roaming": False}
        for number, plan, left in zip(numbers, plans, data, strict=True)
    }
    own = rng.choice(numbers)
    phone = {"airplane_mode": "airplane" in faults, "roaming": False, "abroad": "roaming" in faults}
    reference = [Call("assistant", "look_up", {"number": own})] if faults or question else []
    if "bill" in faults:
        accounts[own] |= {"bill": "overdue", "line": "suspended"}
        reference += [
            Call("assistant", "send_bill", {"number": own}),
            Call("user", "pay_bill", {}),
            Call("assistant", "resume_line", {"number": own}),
        ]
    if "airplane" in faults:
        reference.append(Call("user", "toggle_airplane_mode", {}))
    if "roaming" in faults:
        reference += [Call("assistant", "allow_roaming", {"number": own}), Call("user", "toggle_roaming", {})]
    required = {"plan": accounts[own]["plan"], "data": str(accounts[own]["data_left"])}
    return {
        "number": own,
        "database": {"accounts": accounts, "phone": phone},
        "reference": [list(call) for call in reference],
        "required": [required[question]] if question else [],
        "scenario": _scenario(own, faults, question),
        "question": question,
    }


def all_phone_numbers(digits: int) -> range:
    """The numbers of so many digits that do not begin with 0."""
    return range(10 ** (digits - 1), 10**digits)


def _scenario(number: str, faults: Sequence[str], question: str | None) -> str:
    lines = [f"Your phone has the number {number}."]
    lines.append("It has no connection." if faults else "It works, and you want nothing changed.")
    if "roaming" in faults:
        lines.append("You are abroad.")
    if question:
        lines.append(QUESTIONS[question])
    return " ".join(lines)


def dump_case(case: dict[str, Any]) -> str:
    """A case as text, for one column of a dataset whose rows have different accounts."""
    return json.dumps(case)


def load_case(text: str) -> dict[str, Any]:
    """The case, with `reference` as [`Call`]s."""
    case = json.loads(text)
    return case | {"reference": [Call(*call) for call in case["reference"]]}
