"""Callbacks for team runs: a progress bar that says something, and the KL on rollouts that no update has seen."""

from typing import TYPE_CHECKING

from datasets import Dataset
from transformers import TrainerCallback
from transformers.trainer_callback import ProgressCallback

from .snapshot import Snapshot


if TYPE_CHECKING:
    from .teamtr_trainer import TeamTRTrainer


class TeamProgressCallback(ProgressCallback):
    """The usual progress bar over updates, with the team's reward and the KL of the last update beside it."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not state.is_world_process_zero or self.training_bar is None or "reward" not in (logs or {}):
            return
        shown = {"reward": logs["reward"]}
        shown |= {key.split("/")[1] + " KL": value for key, value in logs.items() if key.endswith("/kl")}
        self.training_bar.set_postfix({key: f"{value:.3f}" for key, value in shown.items() if value is not None})

    def on_prediction_step(self, args, state, control, **kwargs):
        pass  # an evaluation is a few batches: a second bar within the first says nothing


class HeldOutKLCallback(TrainerCallback):
    """
    Measures each update's KL on rollouts of the same team that the update was not fitted to.

    The KL on the training rollouts, by which an update is accepted, is slightly optimistic. Logs
    `agent/{name}/kl_heldout` (exact, in nats per message) and `out_of_region_rate_heldout`: the share of accepted
    updates whose held-out KL exceeds the radius. Costs one more team rollout per update.

    Args:
        trainer (`TeamTRTrainer`): The trainer to add it to, with `trainer.add_callback(...)`.
        dataset ([`~datasets.Dataset`]): Held-out prompts.
        size (`int`): Number of rollouts per update, each of another prompt.

    Attributes:
        kls (`list[tuple[str, float, float]]`): Agent, held-out KL and radius of every accepted update so far.
    """

    def __init__(self, trainer: "TeamTRTrainer", dataset: Dataset, size: int = 128):
        self.trainer = trainer
        self.rows = [dataset[i % len(dataset)] for i in range(size)]
        self.kls: list[tuple[str, float, float]] = []

    def on_step_begin(self, args, state, control, **kwargs):
        agent = self.trainer.active_agent
        rollouts = self.trainer.collect_rollouts(self.rows)
        self._batch = agent.view_batch(rollouts)
        self._snapshot = Snapshot(agent.engine, with_optimizer=False)

    def on_step_end(self, args, state, control, **kwargs):
        agent, report = self.trainer.active_agent, self.trainer.last_report
        batch, snapshot = self._batch, self._snapshot
        del self._batch, self._snapshot
        if report.rejected:
            return
        kl = agent.measure_kl([batch], snapshot, "exact")
        metrics = self.trainer._metrics["train"]
        metrics[f"agent/{agent.name}/kl_heldout"].append(kl)
        if agent.radius is not None:
            self.kls.append((agent.name, kl, agent.radius))
            metrics["out_of_region_rate_heldout"].append(float(kl > agent.radius))

    @property
    def out_of_region_rate(self) -> float:
        """Share of the accepted updates so far whose held-out KL exceeded the radius."""
        return sum(kl > radius for _, kl, radius in self.kls) / max(len(self.kls), 1)
