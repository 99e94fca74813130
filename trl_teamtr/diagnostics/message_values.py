"""What the messages of some held-out rollouts are worth, at each evaluation: `log_message_values`."""

from collections.abc import Sequence
from typing import Any

from accelerate.utils import gather_object
from transformers import TrainerCallback

from ..policy.evaluating import evaluating
from .callback import own_randomness
from .watched import Watched


class MessageValueCallback(TrainerCallback):
    """
    At each evaluation, lets the team play held-out prompts once more and measures the value of each message
    ([`~TeamTRTrainer.value_of`]), for the transcripts of the report.

    Training is bit-identical with and without it. A message costs `num_rollouts` rollouts that go on from it, and as many in which
    its author speaks anew.

    Args:
        trainer ([`Watched`]): The trainer to add it to.
        rows (`Sequence[dict]`): Held-out prompts, one rollout each.
        num_rollouts (`int`): Rollouts from each message, and from each of its contexts.
    """

    def __init__(self, trainer: Watched, rows: Sequence[dict[str, Any]], num_rollouts: int):
        self._trainer, self._rows, self._num_rollouts = trainer, rows, num_rollouts

    def on_evaluate(self, args, state, control, **kwargs):
        trainer = self._trainer
        with evaluating([speaker.policy.model for speaker in trainer.team.local_speakers]), own_randomness(trainer):
            for row in self._rows:
                self._measure(row)

    def _measure(self, row: dict[str, Any]):
        trainer = self._trainer
        rollouts = trainer.team.collect([row])
        returns = trainer.compute_returns([row], rollouts.transcripts)
        # All processes value as many: one whose rollout has fewer messages values its last one again
        numbers = gather_object([len(rollouts.transcripts[0].messages)])
        if min(numbers) == 0:
            return
        last = numbers[trainer.team.accelerator.process_index] - 1
        values = [trainer.value_of(row, rollouts, min(turn, last), self._num_rollouts) for turn in range(max(numbers))]
        reward = returns[trainer.team.accelerator.process_index].item()
        step, agents = trainer.state.global_step, len(trainer.trained_members)
        trainer.transcript_log.write_values(
            step,
            -(-step // agents),
            rollouts.transcripts[0],
            reward,
            [(value.advantage, value.advantage_se) for value in values[: last + 1]],
        )
