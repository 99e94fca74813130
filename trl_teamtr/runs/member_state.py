"""What a checkpoint has of a member beside its weights: optimizer, schedule, β, floors and entropy controller."""

import json
import os
from dataclasses import dataclass, field
from typing import Any

from transformers.trainer import TRAINER_STATE_NAME
from trl import GRPOTrainer

from ..trust_region.floor import Floors
from ..trust_region.update import KLController
from .weights import load_weights


MEMBER_STATE = "teamtr_state.json"


def save_member(
    member: GRPOTrainer, controller: KLController, floors: Floors, joined: int, folder: str, only_model: bool
):
    """
    Save an agent's optimizer, schedule, β, floors and entropy controller beside its weights, and the update `joined` before which
    it joined the run: 0 for one that was there from the beginning.
    """
    if not only_model:
        member._save_optimizer_and_scheduler(folder)
        member._save_scaler(folder)
    if member.args.should_save:
        member.state.save_to_json(os.path.join(folder, TRAINER_STATE_NAME))
        state = {
            "kl_coef": controller.coef,
            "floors": [floors.scoring, floors.training],
            "entropy_coef": member.entropy_coef,
            "last_world_entropy": member._last_world_entropy,
            "joined": joined,
        }
        with open(os.path.join(folder, MEMBER_STATE), "w", encoding="utf-8") as file:
            json.dump(state, file)


@dataclass(frozen=True)
class Beginning:
    """
    Where a member's training goes on.

    Args:
        folder (`str`, *optional*): Its folder in the checkpoint with its optimizer; `None` if it starts anew.
        joined (`int`): The update before which it joined the run.
        state (`dict`): What [`save_member`] wrote.
    """

    folder: str | None
    joined: int = 0
    state: dict[str, Any] = field(default_factory=dict)


def find_beginning(model: Any, folder: str | None) -> Beginning:
    """
    Where the training of the member with `model` goes on. One that has joined the run with the checkpoint, and has had no update yet,
    gets the weights that the checkpoint has of it, and starts anew.

    Args:
        model ([`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]): The member's, before it is wrapped.
        folder (`str`, *optional*): The member's folder in the checkpoint.
    """
    if folder is None:
        return Beginning(None)
    with open(os.path.join(folder, MEMBER_STATE), encoding="utf-8") as file:
        state = {"joined": 0} | json.load(file)  # older checkpoints do not say
    if "kl_coef" in state:
        return Beginning(folder, state["joined"], state)
    load_weights(model, folder)
    return Beginning(None, state["joined"])


def load_member_state(member: GRPOTrainer, controller: KLController, floors: Floors, state: dict[str, Any]):
    """Load the `state` of a [`Beginning`]."""
    controller.coef = state["kl_coef"]
    floors.scoring, floors.training = state.get("floors", (None, 0.0))  # older checkpoints have none
    member.entropy_coef, member._last_world_entropy = state["entropy_coef"], state["last_world_entropy"]
