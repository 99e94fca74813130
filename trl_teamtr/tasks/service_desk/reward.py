"""The scorer of the service desk: the database as it is at the end, and what the assistant said."""

import re
from typing import Any

from .cases import load_case
from .environment import ServiceDesk


ASSISTANT = "assistant"  # name of the agent whose messages the customer hears


def expected_database(case: str) -> dict[str, Any]:
    """The database after the case's reference calls."""
    desk = ServiceDesk()
    desk.reset(case)
    for call in load_case(case)["reference"]:
        getattr(desk, call.name)(**call.arguments)
    return desk.database


def score(case: str, database: dict[str, Any], messages: list[dict[str, str]]) -> float:
    """
    1 if the database is as the reference calls leave it and the assistant said all that was asked for, else 0.

    Args:
        case (`str`): The case, as text.
        database (`dict`): The database at the end.
        messages (`list[dict]`): The transcript, with `name` and `content`.
    """
    said = "\n".join(message["content"] for message in messages if message["name"] == ASSISTANT)
    required = load_case(case)["required"]
    complete = all(re.search(rf"\b{re.escape(text)}\b", said, re.IGNORECASE) for text in required)
    return float(complete and database == expected_database(case))


def service_desk_reward(
    transcripts: list[list[dict[str, str]]], environments: list[ServiceDesk], case: list[str], **kwargs
) -> list[float]:
    """[`score`] of each rollout, from its transcript and its environment."""
    return [
        score(each, desk.database, messages)
        for each, desk, messages in zip(case, environments, transcripts, strict=True)
    ]
