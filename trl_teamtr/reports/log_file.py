"""`log.jsonl` in the output directory: what is logged, one line each, whatever else it is reported to."""

import json
import math
import os
from typing import Any

from transformers import TrainerCallback


LOG_FILE = "log.jsonl"


class LogFileCallback(TrainerCallback):
    """
    Appends every log to `log.jsonl`. A run that is resumed continues the file at its checkpoint: what a killed run logged after it
    is removed, since it is logged again. A new run begins the file anew.
    """

    def __init__(self):
        self._before: list[dict[str, Any]] = []  # of evaluations before the training, which has a new history

    def on_train_begin(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            _write(args.output_dir, state.log_history if state.global_step else self._before, "w")
        self._before = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not state.is_world_process_zero or not state.log_history:
            return
        entry = state.log_history[-1]
        if state.global_step == 0:
            self._before.append(entry)
        _write(args.output_dir, [entry], "a")


def _write(folder: str, entries: list[dict[str, Any]], mode: str):
    if not entries and not os.path.isdir(folder):
        return
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, LOG_FILE)
    if mode == "w":  # a kill leaves the file as it was, or as it shall be
        with open(f"{path}.tmp", "w", encoding="utf-8") as file:
            file.writelines(map(_as_line, entries))
        os.replace(f"{path}.tmp", path)
        return
    with open(path, "a", encoding="utf-8") as file:
        file.writelines(map(_as_line, entries))


def _as_line(entry: dict[str, Any]) -> str:
    # JSON has no NaN
    finite = {
        key: None if isinstance(each, float) and not math.isfinite(each) else each for key, each in entry.items()
    }
    return json.dumps(finite) + "\n"
