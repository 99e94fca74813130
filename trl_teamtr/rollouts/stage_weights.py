"""Log-ratios of a stage's first rollouts under the current team, message by message."""

import torch

from ..policy.scoring import loss_mask
from ..policy.speaker import Speaker
from ..trust_region.snapshot import Snapshot
from .rollouts import Rollouts


class ScoredView:
    """
    An agent's view of rollouts, scored before and after its update.

    Attributes:
        batch (`dict`): The view as padded tensors ([`~Speaker.view_batch`]), with `old_per_token_logps` of the
            policy before the update.
        mask (`torch.Tensor` of shape `(rows, length)`): 1 on the tokens of its own messages.
        log_ratios (`torch.Tensor` of shape `(rows, length)`): log π_new - log π_cur of each of them; 0 elsewhere.
        numbers (`torch.Tensor` of shape `(rows, length)`, int64): Own message that a token belongs to; -1 for none.

    Args:
        speaker ([`Speaker`]): The agent, with its weights after the update.
        rollouts (`Rollouts`): Of this process.
        snapshot (`Snapshot`): Its policy before the update.
        batch_size (`int`): Rows per forward pass.
    """

    def __init__(self, speaker: Speaker, rollouts: Rollouts, snapshot: Snapshot, batch_size: int):
        speaker.use()
        self.batch = speaker.view_batch(rollouts.views[speaker.name])
        self.mask = loss_mask(self.batch)
        new = speaker.token_logps(self.batch, batch_size)
        with snapshot.current_policy():
            old = self.batch["old_per_token_logps"] = speaker.token_logps(self.batch, batch_size)
        self.log_ratios = (new - old) * self.mask
        self.numbers = self.batch["message_numbers"]

    def by_message(self, values: torch.Tensor) -> torch.Tensor:
        """Sums of `values` (per token) over each of the agent's messages: float64, shape `(rows, messages)`."""
        count = max(int(self.numbers.max()) + 1, 1)
        sums = torch.zeros(len(values), count, dtype=torch.float64, device=values.device)
        inside = self.numbers >= 0
        return sums.scatter_add_(1, self.numbers.clamp(min=0), values.double() * inside)


class StageWeights:
    r"""
    $\log \pi_{now}(m|s) - \log \pi_{start}(m|s)$ of each message $m$ of the rollouts at the start of a stage.

    Exact for sampling without truncation: with top-p, top-k or min-p the distribution is another.

    Args:
        rollouts (`Rollouts`): The stage's first rollouts, of this process.

    Attributes:
        log_ratios (`torch.Tensor` of shape `(rows, turns)`): Float64, on the CPU; 0 for messages of agents that have not
            been updated, and after a rollout's end.
    """

    def __init__(self, rollouts: Rollouts):
        self.rollouts = rollouts
        turns = max((len(transcript.messages) for transcript in rollouts.transcripts), default=0)
        self.log_ratios = torch.zeros(len(rollouts.transcripts), turns, dtype=torch.float64)

    def add(self, name: str, scored: ScoredView):
        """Add an update of agent `name`, from its view of the rollouts, scored before and after it."""
        by_message, speaks = scored.by_message(scored.log_ratios).cpu(), self.turns_of(name)
        for row, turns in enumerate(speaks):
            self.log_ratios[row, turns] += by_message[row, : int(turns.sum())]

    def turns_of(self, name: str) -> torch.Tensor:
        """The turns of agent `name`: bool, shape `(rows, turns)`."""
        speaks = torch.zeros(self.log_ratios.shape, dtype=torch.bool)
        for row, transcript in enumerate(self.rollouts.transcripts):
            speaks[row, transcript.turns_of(name)] = True
        return speaks
