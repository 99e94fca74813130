"""TRL's adaptive entropy coefficient, which its `_compute_loss` steps in every pass."""

from typing import Any


class EntropyState:
    """
    The state of a trainer's adaptive entropy coefficient at this moment, to return to where a pass does not count.

    Args:
        trainer ([`~trl.GRPOTrainer`], untyped, since these attributes are private): The agent's.
    """

    def __init__(self, trainer: Any):
        self._trainer = trainer
        self._coef, self._entropy = trainer.entropy_coef, trainer._last_world_entropy

    def restore(self):
        """Return to the state. What micro-batches of an unfinished step have summed up is discarded."""
        self._trainer.entropy_coef, self._trainer._last_world_entropy = self._coef, self._entropy
        self._trainer._entropy_window_stats = None
