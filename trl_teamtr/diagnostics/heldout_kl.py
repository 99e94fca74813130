"""The KL of updates on rollouts that they were not trained on."""

from datasets import Dataset
from transformers import TrainerCallback

from ..trust_region.snapshot import Snapshot
from .watched import Watched


class HeldOutKLCallback(TrainerCallback):
    """
    Measures each update's KL on rollouts of the same team that the update was not trained on.

    The KL on the training rollouts, which decides on acceptance, is slightly optimistic. Logs
    `agent/{name}/kl_heldout` (exact, in nats per message) and `out_of_region_rate_heldout`: the share of accepted
    updates whose held-out KL exceeds the radius. Costs `size` more rollouts of the team per update.

    Args:
        trainer ([`TeamTRTrainer`]): The trainer to add it to, with `trainer.add_callback(...)`.
        dataset ([`~datasets.Dataset`]): Held-out prompts.
        size (`int`): Number of rollouts per update, each of another prompt.

    Attributes:
        kls (`list[tuple[str, float, float]]`): Agent, held-out KL and radius of every accepted update so far.
    """

    def __init__(self, trainer: Watched, dataset: Dataset, size: int = 128):
        self.trainer = trainer
        self.rows = [dataset[i % len(dataset)] for i in range(size)]
        self.kls: list[tuple[str, float, float]] = []

    def on_step_begin(self, args, state, control, **kwargs):
        agent = self.trainer.active.agent
        rollouts = self.trainer.team.collect(self.rows)
        # Kept until the update ends: `TrainerCallback` passes nothing from one event to another
        self._batch = agent.speaker.view_batch(rollouts.views[agent.name])
        self._snapshot = Snapshot(agent.engine, with_optimizer=False)

    def on_step_end(self, args, state, control, **kwargs):
        agent, report = self.trainer.active.agent, self.trainer.active.report
        batch, snapshot = self._batch, self._snapshot
        del self._batch, self._snapshot
        if report.rejected:
            return
        kl = agent.measure_kl([batch], snapshot, "exact")
        self.trainer.log_metric(f"agent/{agent.name}/kl_heldout", kl)
        if agent.radius is not None:
            self.kls.append((agent.name, kl, agent.radius))
            self.trainer.log_metric("out_of_region_rate_heldout", float(kl > agent.radius))

    @property
    def out_of_region_rate(self) -> float:
        """Share of the accepted updates so far whose held-out KL exceeded the radius."""
        return sum(kl > radius for _, kl, radius in self.kls) / max(len(self.kls), 1)
