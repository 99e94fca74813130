"""Preemption of a run: on SIGTERM or Ctrl-C it finishes the update, saves a checkpoint and stops."""

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
    On SIGTERM, and on SIGINT (Ctrl-C), finishes the update in progress, requests a checkpoint whatever the `save_strategy`, and
    stops. A second Ctrl-C aborts at once, as Python does.

    The processes agree at the end of each update, so that a signal to one of them stops all. After training the
    previous signal handlers are restored. SIGINT is left alone if Python does not handle it as ever: it may be ignored, or
    have a handler of the user.

    Args:
        accelerator ([`~accelerate.Accelerator`]): The run's.

    Attributes:
        stopped_at (`int` or `None`): Number of updates at which this run was stopped.
        interrupted (`bool`): Whether Ctrl-C has stopped it.
    """

    def __init__(self, accelerator: Accelerator):
        self.accelerator = accelerator
        self.stopped_at: int | None = None
        self.interrupted = False
        self._signalled: int | None = None  # by which
        self._previous: dict[int, Any] = {}  # the handlers from before training

    def on_train_begin(self, args, state, control, **kwargs):
        self.stopped_at, self._signalled, self.interrupted = None, None, False
        if threading.current_thread() is threading.main_thread():  # Python allows handlers in no other thread
            self._previous[signal.SIGTERM] = signal.signal(signal.SIGTERM, self._note)
            if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                self._previous[signal.SIGINT] = signal.signal(signal.SIGINT, self._note)

    def _note(self, signum, frame):
        if signum == signal.SIGINT:
            if self._signalled == signal.SIGINT:
                self.restore()
                raise KeyboardInterrupt("Aborted in the middle of an update. Checkpoints on disk are whole.")
            if self.accelerator.is_main_process:
                print("\nCtrl-C: this update is finished, and the run saved. Ctrl-C again aborts at once.", flush=True)
        self._signalled = signum

    def restore(self):
        """Restore the handlers from before training."""
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)
        self._previous = {}

    def raise_if_interrupted(self):
        """Raise `KeyboardInterrupt` if Ctrl-C has stopped the run, for those who called it."""
        if self.interrupted:
            raise KeyboardInterrupt(
                f"Stopped by Ctrl-C after update {self.stopped_at}, and saved. Resume with `resume_from_checkpoint=True`."
            )

    def on_step_end(self, args, state, control, **kwargs):
        signum = self._agree()
        if signum and state.global_step < state.max_steps:
            self.stopped_at = state.global_step
            self.interrupted = signum == signal.SIGINT
            control.should_save = control.should_training_stop = True

    def _agree(self) -> int:
        """The signal that some process has had; 0 if none has."""
        own = self._signalled or 0
        if self.accelerator.num_processes == 1:
            return own
        found = self.accelerator.gather(torch.tensor([own], device=self.accelerator.device))
        return int(found.max())

    def on_train_end(self, args, state, control, **kwargs):
        self.restore()
        if self.stopped_at is not None:
            logger.warning(
                f"Preempted by {'Ctrl-C' if self.interrupted else 'SIGTERM'} after update {self.stopped_at} of "
                f"{state.max_steps}. The run is saved in {args.output_dir!r}. Resume it with `resume_from_checkpoint=True`."
            )
