"""The returns of a team's rollouts: the inputs of reward functions, and the weighted sum of their rewards."""

from collections.abc import Sequence
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
    """The rows of the dataset with the column `transcripts`, for reward functions."""
    return [{**row, "transcripts": t.as_dicts()} for row, t in zip(rows, transcripts, strict=True)]


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
