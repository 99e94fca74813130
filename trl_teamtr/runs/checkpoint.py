"""The state in a team's checkpoint beside the weights, and how it is loaded."""

import os
from collections.abc import Sequence
from typing import Any

from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import get_last_checkpoint

from ..agents.agent import Agent
from ..agents.history import check_history, history_of
from ..agents.team_file import (
    TEAM_FILE,
    check_same_team,
    read_speaking_settings,
    read_team_file,
    warn_of_other_rewards,
)
from . import run_state
from .changed_settings import check_settings
from .checkpoint_files import recover
from .manifest import MANIFEST, verify


def prepare_resume(
    trainer: run_state.Run, agents: Sequence[Agent], resume_from_checkpoint: str | bool | None
) -> str | None:
    """
    Check that the checkpoint to resume from is whole and fits this run, and return it; `None` if there is none. The run
    takes over the date that its chat templates print, unless its config has one.

    Args:
        trainer ([`Run`]): The lead of the team.
        agents (`Sequence[Agent]`): The team.
        resume_from_checkpoint (`str` or `bool`, *optional*): The argument of `train`; `True` for the last checkpoint.

    Raises:
        `FileNotFoundError`: If there is no such checkpoint.
        `ValueError`: If it is damaged, of another team, or of a run of another shape.
    """
    run_dir = str(trainer.args.output_dir)
    if trainer.args.should_save:
        recover(run_dir)
    trainer.accelerator.wait_for_everyone()
    if resume_from_checkpoint is None or resume_from_checkpoint is False:
        return None
    last = get_last_checkpoint(run_dir) if os.path.isdir(run_dir) else None
    folder = last if isinstance(resume_from_checkpoint, bool) else resume_from_checkpoint
    if folder is None or not os.path.isdir(folder):
        raise FileNotFoundError(
            (f"There is no checkpoint in {run_dir!r}" if folder is None else f"There is no checkpoint {folder!r}")
            + (f". The last one of this run is {last!r}." if last else ": leave `resume_from_checkpoint` out.")
        )
    if not any(os.path.isfile(os.path.join(folder, name)) for name in (TRAINER_STATE_NAME, MANIFEST)):
        raise FileNotFoundError(
            f"{folder!r} is no checkpoint: it has no {TRAINER_STATE_NAME}. Checkpoints are the folders "
            f"`checkpoint-<updates>`{f', the last one {last!r}' if last else ''}; to train a saved team further, pass it as "
            "the trainer's `model`."
        )
    if not os.path.isfile(os.path.join(folder, TEAM_FILE)):
        raise ValueError(
            f"{folder!r} is a checkpoint of a single model, for example of a `GRPOTrainer`, not of a team: it has no {TEAM_FILE}. "
            f"To start a new run from its weights, pass it as an agent's model: `Agent('...', {folder!r})`."
        )
    verify(folder, trainer.accelerator)
    check_same_team(folder, agents)
    history = read_team_file(folder).get("history", [])
    check_history(folder, history, history_of(agents))
    for agent in agents:
        agent.history = history
    warn_of_other_rewards(folder, agents)
    run_state.check(trainer, [agent.name for agent in agents if agent.trainable], folder)
    if trainer.args.template_date is None:
        trainer.args.template_date = read_speaking_settings(folder).template_date
    check_settings(trainer.args, agents, folder, tell=trainer.accelerator.is_main_process)
    return folder


def save_run_state(trainer: run_state.Run, trained: Sequence[str], folder: str, final: str):
    """
    Save the random states and the state of the run.

    Args:
        trainer ([`Run`]): The lead of the team.
        trained (`Sequence[str]`): Names of the trained agents.
        folder (`str`): Folder to write to.
        final (`str`): The checkpoint's path, once it is whole.
    """
    if not trainer.args.save_only_model:
        trainer._save_rng_state(folder)
    state: Any = trainer.state
    if state.best_global_step:  # on every process, since all of them load the best team at the end
        best = os.path.join(os.path.dirname(final), f"checkpoint-{state.best_global_step}")
        if best == final or os.path.isdir(best):
            state.best_model_checkpoint = best
    if not trainer.args.should_save:
        return
    exported = state.stateful_callbacks
    for callback in [*trainer.callback_handler.callbacks, trainer.control]:
        if isinstance(callback, ExportableState):
            name = type(callback).__name__
            if isinstance(exported[name], list):
                exported[name].append(callback.state())
            else:
                exported[name] = callback.state()
    state.save_to_json(os.path.join(folder, TRAINER_STATE_NAME))
    run_state.write(trainer, trained, folder)
