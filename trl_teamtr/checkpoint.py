"""What a checkpoint of a team holds beside the weights, and how it gets to its place."""

import json
import os
import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING

from transformers.trainer import TRAINER_STATE_NAME, rotate_checkpoints
from transformers.trainer_callback import ExportableState

from .agent import Agent
from .team import TEAM_FILE, describe_team
from .teamtr_config import TeamTRConfig


if TYPE_CHECKING:
    from .agent_trainer import AgentTrainer
    from .teamtr_trainer import TeamTRTrainer


MEMBER_STATE = "teamtr_state.json"


def write_team_file(folder: str, agents: Sequence[Agent], args: TeamTRConfig):
    """Write `team.json`, in one piece."""
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, TEAM_FILE)
    with open(f"{path}.tmp", "w", encoding="utf-8") as file:
        json.dump(describe_team(agents, args), file, indent=2)
    os.replace(f"{path}.tmp", path)


def save(trainer: "TeamTRTrainer", run_dir: str):
    """
    Write `checkpoint-<updates>` in `run_dir`: every agent with its optimizer, and the state of the run. It is written
    under another name and renamed when it is whole, so that no kill leaves half a checkpoint behind.
    """
    final = os.path.join(run_dir, f"checkpoint-{trainer.state.global_step}")
    folder = os.path.join(run_dir, f"tmp-checkpoint-{trainer.state.global_step}")
    if trainer.args.should_save:
        shutil.rmtree(folder, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    trainer.create_model_card(model_name=trainer.args.hub_model_id or os.path.basename(trainer.args.output_dir))
    trainer.store_flos()
    trainer.save_model(folder, _internal_call=True)
    for member in trainer.trained_members:
        save_member(member, os.path.join(folder, member.name), trainer.args.save_only_model)
    save_run_state(trainer, folder, final)
    trainer.accelerator.wait_for_everyone()
    if trainer.args.should_save:
        shutil.rmtree(final, ignore_errors=True)
        os.rename(folder, final)
        rotate_checkpoints(
            output_dir=run_dir,
            save_total_limit=trainer.args.save_total_limit,
            best_model_checkpoint=trainer.state.best_model_checkpoint,
            use_mtime=True,
        )
    trainer.accelerator.wait_for_everyone()
    if trainer.args.push_to_hub:
        trainer.save_model(_internal_call=True)  # what is pushed is the output directory, less its checkpoints
        trainer._push_from_checkpoint(final)


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


def load_member_state(member: "AgentTrainer", folder: str):
    """Read back what [`save_member`] wrote beside the optimizer."""
    with open(os.path.join(folder, MEMBER_STATE), encoding="utf-8") as file:
        state = json.load(file)
    member.controller.coef = state["kl_coef"]
    member.entropy_coef, member._last_world_entropy = state["entropy_coef"], state["last_world_entropy"]


def save_run_state(trainer: "TeamTRTrainer", folder: str, final: str):
    """Write the random states and the trainer's state, in which `final` is the checkpoint's path."""
    if not trainer.args.save_only_model:
        trainer._save_rng_state(folder)
    if not trainer.args.should_save:
        return
    state = trainer.state
    if state.best_global_step:
        best = os.path.join(os.path.dirname(final), f"checkpoint-{state.best_global_step}")
        if best == final or os.path.isdir(best):
            state.best_model_checkpoint = best
    for callback in [*trainer.callback_handler.callbacks, trainer.control]:
        if isinstance(callback, ExportableState):
            name = type(callback).__name__
            if isinstance(state.stateful_callbacks[name], list):
                state.stateful_callbacks[name].append(callback.state())
            else:
                state.stateful_callbacks[name] = callback.state()
    state.save_to_json(os.path.join(folder, TRAINER_STATE_NAME))
