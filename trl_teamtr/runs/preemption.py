"""Preemption of a run: on SIGTERM it finishes the update, saves a checkpoint and stops."""

import signal
import threading
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.logging import get_logger
from transformers import TrainerCallback


logger = get_logger(__name__)


class PreemptionCallback(TrainerCallback):
    """
    On SIGTERM, finishes the update in progress, requests a checkpoint whatever the `save_strategy`, and stops.

    The processes agree at the end of each update, so that a signal to one of them stops all. After training the
    previous signal handler is restored.

    Args:
        accelerator ([`~accelerate.Accelerator`]): The run's.

    Attributes:
        stopped_at (`int` or `None`): Number of updates at which this run was stopped.
    """

    def __init__(self, accelerator: Accelerator):
        self.accelerator = accelerator
        self.stopped_at: int | None = None
        self._signalled = False
        self._previous: Any = None  # the handler from before training

    def on_train_begin(self, args, state, control, **kwargs):
        self.stopped_at, self._signalled = None, False
        if threading.current_thread() is threading.main_thread():  # Python allows handlers in no other thread
            self._previous = signal.signal(signal.SIGTERM, self._note)

    def _note(self, signum, frame):
        self._signalled = True

    def restore(self):
        """Restore the handler of SIGTERM from before training."""
        if self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)
            self._previous = None

    def on_step_end(self, args, state, control, **kwargs):
        if self._agree() and state.global_step < state.max_steps:
            self.stopped_at = state.global_step
            control.should_save = control.should_training_stop = True

    def _agree(self) -> bool:
        if self.accelerator.num_processes == 1:
            return self._signalled
        flag = torch.tensor(int(self._signalled), device=self.accelerator.device)
        return bool(self.accelerator.reduce(flag, reduction="sum"))

    def on_train_end(self, args, state, control, **kwargs):
        self.restore()
        if self.stopped_at is not None:
            logger.warning(
                f"Preempted by SIGTERM after update {self.stopped_at} of {state.max_steps}. The run is saved in "
                f"{args.output_dir!r}. Resume it with `resume_from_checkpoint=True`."
            )
