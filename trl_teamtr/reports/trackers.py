"""What W&B, trackio and TensorBoard show of a team: the team itself, a group for each agent, and a table of transcripts."""

import json
import re
from collections.abc import Callable
from typing import Any

import pandas as pd
from transformers.integrations import TensorBoardCallback, TrackioCallback, WandbCallback
from transformers.trainer_callback import CallbackHandler

from .transcript_log import read_transcripts
from .wandb_fallback import OfflineWandbCallback


# Rows of a table of transcripts, and characters of one of its texts
MAX_ROWS, MAX_TEXT = 200, 8000

# Describes the team, as in `team.json`
Describe = Callable[[], dict[str, Any]]


def split_by_agent(logs: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """
    What is logged, without that of single agents; and this, under `agent_{name}/...`. Trackers group by what stands before the
    first slash, and transformers puts `train/` before all.
    """
    others, own = {}, {}
    for key, value in logs.items():
        match = re.fullmatch(r"agent/([^/]+)/(.+)", key)
        if match is None:
            others[key] = value
        else:
            own[f"agent_{match[1]}/{match[2]}"] = value
    return others, own


def make_table(folder: str) -> pd.DataFrame:
    """Transcripts of the run in `folder`, with who was updated on them, what only some have read, and their rewards."""
    entries = read_transcripts(folder, MAX_ROWS)
    functions = dict.fromkeys(name for entry in entries for name in entry.get("rewards", {}))
    rows = [
        {
            "step": entry["step"],
            "stage": entry["stage"],
            "agent": entry["agent"] or "(evaluation)",
            "prompt": _cut(_join((turn["role"], turn["content"]) for turn in entry["prompt"])),
            "private_prompts": _cut(_join(entry["private"].items())),
            "transcript": _cut(_join((message["agent"], message["text"]) for message in entry["messages"])),
            "reward": entry["reward"],
            **{f"reward/{name}": entry.get("rewards", {}).get(name) for name in functions},
            "advantage": entry.get("advantage"),
        }
        for entry in entries
    ]
    return pd.DataFrame(rows)


def _join(parts: Any) -> str:
    return "\n".join(f"{name}: {text}" for name, text in parts)


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]} …"


class Stages:
    """
    Counts the stages of a run, and says when a table is due: after stages 1, 2, 4, 8, ..., so that all tables of a run together
    are bounded too.

    Args:
        num_trained (`int`): Number of trained agents.
    """

    def __init__(self, num_trained: int):
        self._num_trained = num_trained
        self._last = 0

    def of(self, step: int) -> int:
        """The stage of an update, from 1; 0 before the first."""
        return -(-step // self._num_trained)

    def table_is_due(self, step: int) -> bool:
        """Whether update `step` has ended such a stage, and it has not been asked before."""
        stage = step // self._num_trained
        due = stage > self._last and step % self._num_trained == 0 and stage & (stage - 1) == 0
        self._last = stage if due else self._last
        return due


class TeamWandbCallback(OfflineWandbCallback):
    """
    [`OfflineWandbCallback`] with a panel for each agent, over the stages of the run, and the table `transcripts`.

    Args:
        describe (`Callable[[], dict]`): Describes the team, as in `team.json`.
        num_trained (`int`): Number of trained agents.
    """

    def __init__(self, describe: Describe, num_trained: int):
        super().__init__(describe)
        self._stages, self._defined = Stages(num_trained), set[str]()

    def setup(self, args, state, model, **kwargs):
        super().setup(args, state, model, **kwargs)
        self._defined = set()
        if self._wandb.run is not None:
            self._wandb.run.define_metric("stage")

    def on_log(self, args, state, control, model=None, logs=None, **kwargs):
        others, own = split_by_agent(logs or {})
        super().on_log(args, state, control, model, others, **kwargs)
        if not state.is_world_process_zero or self._wandb.run is None:
            return
        for key in own.keys() - self._defined:
            # By its whole name: of two patterns that fit, W&B may take either, and transformers has defined "*"
            self._wandb.run.define_metric(key, step_metric="stage")
            self._defined.add(key)
        if own:
            stage = self._stages.of(state.global_step)
            self._wandb.log({**own, "stage": stage, "train/global_step": state.global_step})
        if self._stages.table_is_due(state.global_step):
            self._log_table(args)

    def on_train_end(self, args, state, control, model=None, processing_class=None, **kwargs):
        if state.is_world_process_zero and self._wandb.run is not None:
            self._log_table(args)
        super().on_train_end(args, state, control, model, processing_class, **kwargs)

    def _log_table(self, args):
        self._wandb.log({"transcripts": self._wandb.Table(dataframe=make_table(args.output_dir))})


class TeamTrackioCallback(TrackioCallback):
    """
    [`~transformers.integrations.TrackioCallback`] with the team in the config of the run, a group of metrics for each agent, and the
    table `transcripts`.

    Args:
        describe (`Callable[[], dict]`): Describes the team, as in `team.json`.
        num_trained (`int`): Number of trained agents.
    """

    def __init__(self, describe: Describe, num_trained: int):
        super().__init__()
        self._describe, self._stages = describe, Stages(num_trained)

    def setup(self, args, state, model, **kwargs):
        super().setup(args, state, model, **kwargs)
        if state.is_world_process_zero:
            self._trackio.config.update({"team": self._describe()}, allow_val_change=True)

    def on_log(self, args, state, control, model=None, logs=None, **kwargs):
        others, own = split_by_agent(logs or {})
        super().on_log(args, state, control, model, others, **kwargs)
        if not state.is_world_process_zero:
            return
        if own:
            stage = self._stages.of(state.global_step)
            self._trackio.log({**own, "stage": stage, "train/global_step": state.global_step})
        if self._stages.table_is_due(state.global_step):
            self._log_table(args)

    def on_train_end(self, args, state, control, model=None, processing_class=None, **kwargs):
        if state.is_world_process_zero and self._initialized:  # before the run is finished
            self._log_table(args)
        super().on_train_end(args, state, control, model, processing_class, **kwargs)

    def _log_table(self, args):
        self._trackio.log({"transcripts": self._trackio.Table(dataframe=make_table(args.output_dir))})


class TeamTensorBoardCallback(TensorBoardCallback):
    """
    [`~transformers.integrations.TensorBoardCallback`] with a group of scalars for each agent, and the team as text.

    Args:
        describe (`Callable[[], dict]`): Describes the team, as in `team.json`.
        tb_writer (`SummaryWriter`, *optional*): The writer to use; one is made if not given.
    """

    def __init__(self, describe: Describe, tb_writer: Any = None):
        super().__init__(tb_writer)
        self._describe = describe

    def on_train_begin(self, args, state, control, **kwargs):
        super().on_train_begin(args, state, control, **kwargs)
        if self.tb_writer is not None:
            shown = json.dumps(self._describe(), indent=2, default=str)
            self.tb_writer.add_text("team", f"```\n{shown}\n```")

    def on_log(self, args, state, control, logs=None, **kwargs):
        others, own = split_by_agent(logs or {})
        super().on_log(args, state, control, others, **kwargs)
        if self.tb_writer is not None and state.is_world_process_zero:
            for key, value in own.items():
                if value is not None:
                    self.tb_writer.add_scalar(key, value, state.global_step)
            self.tb_writer.flush()


def adapt_trackers(handler: CallbackHandler, describe: Describe, num_trained: int):
    """Replace the callbacks of transformers for W&B, trackio and TensorBoard, if there are some, by those of a team."""
    made: dict[type, Callable[[Any], Any]] = {
        WandbCallback: lambda plain: TeamWandbCallback(describe, num_trained),
        TrackioCallback: lambda plain: TeamTrackioCallback(describe, num_trained),
        TensorBoardCallback: lambda plain: TeamTensorBoardCallback(describe, plain.tb_writer),
    }
    handler.callbacks = [made[type(each)](each) if type(each) in made else each for each in handler.callbacks]
