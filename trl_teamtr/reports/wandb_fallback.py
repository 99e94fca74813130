"""If the W&B server cannot be reached, a run continues with its logs on disk."""

import os
import warnings
from collections.abc import Callable
from typing import Any

from transformers.integrations import WandbCallback


class OfflineWandbCallback(WandbCallback):
    """
    [`~transformers.integrations.WandbCallback`] that logs to disk if the server cannot be reached, and has the team in the
    config of the run, as `team`.

    W&B's own settings control how long it tries, e.g. the environment variable `WANDB_INIT_TIMEOUT`, in seconds.

    Args:
        describe (`Callable[[], dict]`): Describes the team, as in `team.json`.
    """

    def __init__(self, describe: Callable[[], dict[str, Any]]):
        super().__init__()
        self._describe = describe

    def setup(self, args, state, model, **kwargs):
        self._set_up(args, state, model, **kwargs)
        if self._wandb.run is not None:  # on the main process, unless W&B is disabled
            self._wandb.config.update({"team": self._describe()}, allow_val_change=True)

    def _set_up(self, args, state, model, **kwargs):
        try:
            super().setup(args, state, model, **kwargs)
        except self._wandb.errors.CommError as error:
            # `setup` uses the run that exists already
            run = self._wandb.init(
                project=os.getenv("WANDB_PROJECT", "huggingface"), name=args.run_name, mode="offline"
            )
            folder = run.settings.sync_dir
            warnings.warn(
                f"W&B cannot be reached ({error}). Training continues, and its logs are kept in {folder!r}; send them "
                f"later with `wandb sync {folder}`.",
                stacklevel=2,
            )
            super().setup(args, state, model, **kwargs)
