"""Reports of a run: metrics, the terminal, trackers, the model card."""

from .eval_metrics import add_history, name_by_dataset
from .model_card import describe_team
from .rollout_metrics import measure_rollouts
from .wandb_fallback import OfflineWandbCallback


__all__ = [
    "OfflineWandbCallback",
    "add_history",
    "describe_team",
    "measure_rollouts",
    "name_by_dataset",
]
