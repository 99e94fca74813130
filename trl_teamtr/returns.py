"""The returns of a team's rollouts, as an update of them would get them."""

from typing import TYPE_CHECKING, Any

import torch

from .transcript import Transcript


if TYPE_CHECKING:
    from .rollout import Rollouts
    from .teamtr_trainer import TeamTRTrainer


def answers(transcripts: list[Transcript]) -> list[list[dict[str, str]]] | list[str]:
    """The last message of each rollout, as reward functions get it: conversational where the prompts are."""
    if isinstance(transcripts[0].prompt, str):
        return [transcript.final_text for transcript in transcripts]
    empty = [{"role": "assistant", "content": ""}]
    return [transcript.as_dicts()[-1:] or empty for transcript in transcripts]


def compute_returns(lead: "TeamTRTrainer", rows: list[dict[str, Any]], rollouts: "Rollouts") -> torch.Tensor:
    """
    Weighted sum of the rewards of each rollout, of which nothing is logged.

    Args:
        lead (`TeamTRTrainer`): Whose reward functions they are.
        rows (`list[dict]`): The rows that the rollouts are of.
        rollouts (`Rollouts`): Of this process. All processes call this together.

    Returns:
        `torch.Tensor` of shape `(rows of all processes,)`, float32; NaN where no function returned a reward.
    """
    inputs = [{**row, "transcripts": t.as_dicts()} for row, t in zip(rows, rollouts.transcripts, strict=True)]
    before, lead._rollouts = lead._rollouts, rollouts
    try:
        rewards = lead._calculate_rewards(inputs, [row["prompt"] for row in rows], answers(rollouts.transcripts), None)
    finally:
        lead._rollouts = before
    # What the functions logged by `log_extra` and `log_metric` belongs to no update
    lead._pending_extra_logs.clear()
    lead._pending_metrics.clear()
    return weigh_rewards(rewards, lead.reward_weights)


def weigh_rewards(rewards: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """The weighted sum over reward functions (the columns); NaN where none of them returned a reward."""
    returns = (rewards * weights.to(rewards.device)).nansum(dim=1)
    returns[rewards.isnan().all(dim=1)] = torch.nan
    return returns
