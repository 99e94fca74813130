"""What a checkpoint of a team holds beside the weights, and how it gets to its place."""

import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from peft import PeftModel
from transformers import Trainer
from transformers.integrations.deepspeed import deepspeed_load_checkpoint
from transformers.trainer import TRAINER_STATE_NAME, TRAINING_ARGS_NAME
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import get_last_checkpoint, sort_checkpoints

from . import run_state
from .agent import Agent
from .manifest import MANIFEST, flush, verify, write_manifest
from .team import TEAM_FILE, check_same_team, describe_team
from .teamtr_config import TeamTRConfig


if TYPE_CHECKING:
    from .agent_trainer import AgentTrainer
    from .teamtr_trainer import TeamTRTrainer


ARGS_FILE = "training_args.json"

MEMBER_STATE = "teamtr_state.json"

REPLACED = "tmp-replaced-"  # what a checkpoint is called while one of the same number takes its place
REMOVED = "tmp-removed-"  # and while it is removed


def write_team_files(folder: str, agents: Sequence[Agent], args: TeamTRConfig):
    """
    Write `team.json` and `training_args.json`, each in one piece. The latter takes the place of the `training_args.bin`
    that `Trainer` pickles beside each agent: a pickle runs code where it is loaded, and holds the tokens in clear.
    """
    os.makedirs(folder, exist_ok=True)
    for agent in agents:
        Path(folder, agent.name, TRAINING_ARGS_NAME).unlink(missing_ok=True)
    for name, content in ((TEAM_FILE, describe_team(agents, args)), (ARGS_FILE, args.to_dict())):
        path = os.path.join(folder, name)
        with open(f"{path}.tmp", "w", encoding="utf-8") as file:
            json.dump(content, file, indent=2, default=str)  # e.g. a dtype among `model_init_kwargs`
        os.replace(f"{path}.tmp", path)


def save(trainer: "TeamTRTrainer", run_dir: str):
    """
    Write `checkpoint-<updates>` in `run_dir`: every agent with its optimizer, and the state of the run. It is written
    under another name and renamed when it is whole, so that neither a kill nor a full disk leaves half a checkpoint.

    Raises:
        `OSError` or `RuntimeError`: If it cannot be written; what there is of it is removed, and the last one is whole.
    """
    final = os.path.join(run_dir, f"checkpoint-{trainer.state.global_step}")
    folder = os.path.join(run_dir, f"tmp-checkpoint-{trainer.state.global_step}")
    if trainer.args.should_save:
        shutil.rmtree(folder, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    try:
        _write(trainer, folder, final)
    except Exception as error:
        message = _describe_failure(run_dir, final, error)
        if trainer.args.should_save:
            shutil.rmtree(folder, ignore_errors=True)
        raise (OSError if isinstance(error, OSError) else RuntimeError)(message) from error
    if trainer.args.should_save:
        _put_in_place(folder, final)
        _rotate(run_dir, trainer.args.save_total_limit, trainer.state.best_model_checkpoint)
    trainer.accelerator.wait_for_everyone()
    if trainer.args.push_to_hub:
        trainer.save_model(_internal_call=True)  # what is pushed is the output directory, less its checkpoints
        trainer._push_from_checkpoint(final)


def _write(trainer: "TeamTRTrainer", folder: str, final: str):
    trainer.create_model_card(model_name=trainer.args.hub_model_id or os.path.basename(trainer.args.output_dir))
    trainer.store_flos()
    trainer.save_model(folder, _internal_call=True)
    for member in trainer.trained_members:
        save_member(member, os.path.join(folder, member.name), trainer.args.save_only_model)
    save_run_state(trainer, folder, final)
    trainer.accelerator.wait_for_everyone()
    write_manifest(folder, trainer.accelerator)


def _describe_failure(run_dir: str, final: str, error: Exception) -> str:
    free = shutil.disk_usage(run_dir).free / 2**20
    last = get_last_checkpoint(run_dir)
    return (
        f"The checkpoint {final!r} could not be written: {type(error).__name__}: {error}. The disk of {run_dir!r} had "
        f"{free:.0f} MiB left; `save_total_limit` bounds the number of checkpoints, `save_only_model` their size. "
        + (f"The last whole checkpoint is {last!r}." if last else "There is no earlier checkpoint.")
    )


def _put_in_place(folder: str, final: str):
    """Rename; a checkpoint of the same number is moved aside first and removed last, so that one of them is there."""
    run_dir, name = os.path.split(final)
    aside = os.path.join(run_dir, f"{REPLACED}{name}")
    if os.path.isdir(final):
        shutil.rmtree(aside, ignore_errors=True)
        os.rename(final, aside)
    os.rename(folder, final)
    flush(run_dir)
    shutil.rmtree(aside, ignore_errors=True)


def _rotate(run_dir: str, limit: int | None, best: str | None):
    """
    Remove the oldest checkpoints but `limit`, never the last or the best one, as `rotate_checkpoints` does. That one
    removes a checkpoint under its own name: killed at it, it leaves a part of one that has just been modified, counts
    as the newest, and is kept in the next rotation in the place of a whole one.
    """
    checkpoints = sort_checkpoints(run_dir, use_mtime=True)
    kept = {checkpoints[-1], *([str(Path(best))] if best is not None else [])}
    surplus = len(checkpoints) - max(limit, len(kept)) if limit is not None and limit > 0 else 0
    for path in [path for path in checkpoints if path not in kept][: max(surplus, 0)]:
        aside = os.path.join(run_dir, f"{REMOVED}{os.path.basename(path)}")
        shutil.rmtree(aside, ignore_errors=True)
        os.rename(path, aside)
        shutil.rmtree(aside, ignore_errors=True)


def recover(run_dir: str):
    """Tidy up after a run that was killed while it saved: a checkpoint that was moved aside gets its name back."""
    if not os.path.isdir(run_dir):
        return
    for name in os.listdir(run_dir):
        if not re.fullmatch(r"tmp-((replaced|removed)-)?checkpoint-\d+", name):
            continue
        path, final = os.path.join(run_dir, name), os.path.join(run_dir, name.removeprefix(REPLACED))
        if name.startswith(REPLACED) and not os.path.isdir(final):
            os.rename(path, final)
        else:
            shutil.rmtree(path)


def prepare_resume(trainer: "TeamTRTrainer", resume_from_checkpoint: str | bool | None) -> str | None:
    """
    The checkpoint to resume from, if any, after a look at whether it is whole and of such a run.

    Raises:
        `FileNotFoundError`: If there is no such checkpoint.
        `ValueError`: If it is damaged, of another team, or of a run of another shape.
    """
    run_dir = trainer.args.output_dir
    if trainer.args.should_save:
        recover(run_dir)
    trainer.accelerator.wait_for_everyone()
    if resume_from_checkpoint is None or resume_from_checkpoint is False:
        return None
    last = get_last_checkpoint(run_dir) if os.path.isdir(run_dir) else None
    folder = last if resume_from_checkpoint is True else resume_from_checkpoint
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
    verify(folder, trainer.accelerator)
    check_same_team(folder, [member.agent for member in trainer.members])
    run_state.check(trainer, folder)
    return folder


def save_member(member: "AgentTrainer", folder: str, only_model: bool):
    """Write an agent's optimizer, schedule, β and entropy controller beside its weights."""
    if not only_model:
        member._save_optimizer_and_scheduler(folder)
        member._save_scaler(folder)
    if member.args.should_save:
        member.state.save_to_json(os.path.join(folder, TRAINER_STATE_NAME))
        state = {
            "kl_coef": member.controller.coef,
            "entropy_coef": member.entropy_coef,
            "last_world_entropy": member._last_world_entropy,
        }
        with open(os.path.join(folder, MEMBER_STATE), "w", encoding="utf-8") as file:
            json.dump(state, file)


def load_best(trainer: "TeamTRTrainer"):
    """Give all agents their weights of the best checkpoint."""
    for member in trainer.members:
        folder = os.path.join(trainer.state.best_model_checkpoint, member.name)
        if not trainer.is_deepspeed_enabled:
            Trainer._load_from_checkpoint(member, folder, member.model)
        elif member.agent.trainable:  # the others have none, and have not changed
            deepspeed_load_checkpoint(member.model_wrapped, folder, not isinstance(member.model, PeftModel))


def load_member_state(member: "AgentTrainer", folder: str):
    """Read back what [`save_member`] wrote beside the optimizer."""
    with open(os.path.join(folder, MEMBER_STATE), encoding="utf-8") as file:
        state = json.load(file)
    member.controller.coef = state["kl_coef"]
    member.entropy_coef, member._last_world_entropy = state["entropy_coef"], state["last_world_entropy"]


def save_run_state(trainer: "TeamTRTrainer", folder: str, final: str):
    """Write the random states and the state of the run, in which `final` is the checkpoint's path."""
    if not trainer.args.save_only_model:
        trainer._save_rng_state(folder)
        trainer.resampler.save(folder)
    state = trainer.state
    if state.best_global_step:  # on every process, since all of them load the best team at the end
        best = os.path.join(os.path.dirname(final), f"checkpoint-{state.best_global_step}")
        if best == final or os.path.isdir(best):
            state.best_model_checkpoint = best
    if not trainer.args.should_save:
        return
    for callback in [*trainer.callback_handler.callbacks, trainer.control]:
        if isinstance(callback, ExportableState):
            name = type(callback).__name__
            if isinstance(state.stateful_callbacks[name], list):
                state.stateful_callbacks[name].append(callback.state())
            else:
                state.stateful_callbacks[name] = callback.state()
    state.save_to_json(os.path.join(folder, TRAINER_STATE_NAME))
    run_state.write(trainer, folder)
