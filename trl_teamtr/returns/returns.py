"""The returns of a team's rollouts: the inputs of reward functions, and the weighted sum of their rewards."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from ..conversation.transcript import Transcript


def answers(transcripts: Sequence[Transcript]) -> list[list[dict[str, str]]] | list[str]:
    """The last message of each rollout, as reward functions get it: conversational if the prompts are."""
    if isinstance(transcripts[0].prompt, str):
        return [transcript.final_text for transcript in transcripts]
    empty = [{"role": "assistant", "content": ""}]
    return [transcript.as_dicts()[-1:] or empty for transcript in transcripts]


def answer_ids(transcripts: Sequence[Transcript]) -> list[list[int]]:
    """The sampled ids of the last message of each rollout, in its author's vocabulary."""
    return [list(t.messages[-1].ids) if t.messages else [] for t in transcripts]


def reward_inputs(rows: Sequence[dict[str, Any]], transcripts: Sequence[Transcript]) -> list[dict[str, Any]]:
    """The rows of the dataset with the columns of [`reward_columns`], for reward functions."""
    return [{**row, **reward_columns(t)} for row, t in zip(rows, transcripts, strict=True)]


def reward_columns(transcript: Transcript) -> dict[str, Any]:
    """
    What reward functions get of a rollout: `transcripts`, its messages; and, if it has environments, `environments`, that of the
    team, and `worlds`, all of them.
    """
    if transcript.world is None:
        return {"transcripts": transcript.as_dicts()}
    world = transcript.world
    return {"transcripts": transcript.as_dicts(), "environments": world.team, "worlds": world}


def as_columns(rows: Iterable[dict[str, Any]]) -> dict[str, list]:
    """Rows that have the same keys, as columns."""
    columns: dict[str, list] = {}
    for row in rows:
        for key, value in row.items():
            columns.setdefault(key, []).append(value)
    return columns


def weigh_rewards(rewards: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """
    The weighted sum over reward functions.

    Args:
        rewards (`torch.Tensor` of shape `(rows, functions)`): NaN where a function does not apply.
        weights (`torch.Tensor` of shape `(functions,)`): Their weights.

    Returns:
        `torch.Tensor` of shape `(rows,)`; NaN where no function returned a reward.
    """
    returns = (rewards * weights.to(rewards.device)).nansum(dim=1)
    returns[rewards.isnan().all(dim=1)] = torch.nan
    return returns
