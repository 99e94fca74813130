"""Probe prompts, on which the old team talks: what the member that leaves reads there, and says."""

import random
from collections.abc import Iterable, Sequence
from typing import Any

from ..conversation.transcript import Transcript
from ..team import Team


def as_rows(team: Team, prompts: Iterable[Any] | None, what: str) -> list[dict[str, Any]]:
    """
    Prompts as rows of a dataset.

    Args:
        team ([`Team`]): Whose prompts they are: text is a user's turn for a team that answers conversations.
        prompts (`Iterable`): Texts, conversations, or rows such as those of a [`~datasets.Dataset`].
        what (`str`): The argument that has them, for messages.

    Raises:
        `ValueError`: If there are none, or a row has no `prompt`.
    """
    rows = [dict(prompt) if isinstance(prompt, dict) else {"prompt": prompt} for prompt in prompts or ()]
    if not rows:
        raise ValueError(
            f"`{what}` has no prompt. Pass prompts of the task, or rows of its dataset, that the team was not trained on: the team "
            "talks on them, and the new member is aligned to what the old one says there."
        )
    for row in rows:
        if "prompt" not in row:
            raise ValueError(
                f"A row of `{what}` has no column 'prompt', but {', '.join(map(repr, row)) or 'none'}. Rename the column of the task."
            )
        if isinstance(row["prompt"], str) and team.answers_conversations:
            row["prompt"] = [{"role": "user", "content": row["prompt"]}]
    return rows


def split_probes(
    rows: Sequence[dict[str, Any]], count: int, held_out_fraction: float, seed: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """
    At most `count` rows, shuffled: those to train on, and the share that is held out; at least one of each.

    Raises:
        `ValueError`: If there is only one.
    """
    if len(rows) < 2:
        raise ValueError("There is one probe prompt, but at least two are needed: one trains, one is held out.")
    chosen = random.Random(seed).sample(list(rows), min(count, len(rows)))
    held_out = min(max(1, round(held_out_fraction * len(chosen))), len(chosen) - 1)
    return chosen[held_out:], chosen[:held_out]


def talk(team: Team, rows: Sequence[dict[str, Any]], batch_size: int, seed: int) -> list[Transcript]:
    """The conversations of `team` on `rows`, the same ones for the same seed."""
    return team.generate(rows, batch_size=batch_size, seed=seed)
