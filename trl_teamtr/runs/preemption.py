"""What a run does when its machine is taken away: on SIGTERM it ends the update, saves a checkpoint and stops."""

import signal
import threading

import torch
from accelerate import Accelerator
from accelerate.logging import get_logger
from transformers import TrainerCallback


logger = get_logger(__name__)


class PreemptionCallback(TrainerCallback):
    """
    On SIGTERM, lets the update in progress end, asks for a checkpoint, whatever `save_strategy` says, and stops.

    The processes agree at the end of each update, so that one that got the signal stops all. What the signal did
    before training is what it does after it.

    Args:
        accelerator ([`~accelerate.Accelerator`]): Of the run.

    Attributes:
        stopped_at (`int` or `None`): Number of updates at which this run was stopped.
    """

    def __init__(self, accelerator: Accelerator):
        self.accelerator = accelerator
        self.stopped_at: int | None = None
        self._signalled = False
        self._previous = None

    def on_train_begin(self, args, state, control, **kwargs):
        self.stopped_at, self._signalled = None, False
        if threading.current_thread() is threading.main_thread():  # Python allows handlers in no other
            self._previous = signal.signal(signal.SIGTERM, self._note)

    def _note(self, signum, frame):
        self._signalled = True

    def restore(self):
        """Give SIGTERM back to whoever had it before training."""
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
                f"{args.output_dir!r} and goes on from there with `resume_from_checkpoint=True`."
            )
