"""Writes the models of a team to disk, beside a `team.json`: as they are, with adapters merged, or with their bases."""

import json
import os
from typing import Any

from peft import PeftModel
from transformers import AutoTokenizer
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from trl.trainer.utils import create_model_from_path

from .agent import Agent
from .agent_folders import AgentPlace
from .model_copies import copy_untouched


# Where the bases of adapters are, in the directory of a team that has them with it
BASES = "bases"


def save_agents(
    folder: str,
    members: list[tuple[Agent, Any]],
    team_size: int | None = None,
    merge: bool = False,
    self_contained: bool = False,
    weights: dict[str, Any] | None = None,
):
    """
    Write the model and the tokenizer of each member into its folder, where they replace those of an earlier one.

    Args:
        folder (`str`): Directory of the team.
        members (`list[tuple[Agent, PreTrainedModel or PeftModel]]`): The agents, with their tokenizers, and their models.
        team_size (`int`, *optional*): Number of agents of the team, if some of them have no model here.
        merge (`bool`): Whether adapters are merged into the weights of their bases, and saved as whole models.
        self_contained (`bool`): Whether the bases of adapters are saved too, so that the directory needs no other.
        weights (`dict`, *optional*): By name, the weights of models that are partitioned ([`gather_weights`]).

    Raises:
        `ValueError`: If an adapter's base has no path, and so could not be found again.
        `RuntimeError`: If ZeRO-3 has partitioned a model, and its `weights` are not given.
    """
    apart = [
        agent.name for agent, _ in members if is_deepspeed_zero3_enabled() and not (weights or {}).get(agent.name)
    ]
    if apart:
        raise RuntimeError(
            f"Under ZeRO-3 no process has the weights of agent {apart[0]!r}, which would be saved empty. Call `trainer.save_model(folder)` on "
            "all processes, which gathers them."
        )
    bases = _SavedBases(folder)
    os.makedirs(folder, exist_ok=True)
    for agent, model in members:
        place = AgentPlace(folder, agent.name, len(members) if team_size is None else team_size)
        place.recover()
        is_adapter = isinstance(model, PeftModel) and not merge
        whole = copy_untouched(model).merge_and_unload() if isinstance(model, PeftModel) and merge else model
        whole.save_pretrained(place.written, state_dict=(weights or {}).get(agent.name))
        agent.processing_class.save_pretrained(place.written)  # type: ignore[union-attr]  # a loaded agent has one
        if is_adapter and self_contained:
            _set_base(place.written, os.path.relpath(bases.save(agent, model), place.folder))
        place.put()


def _set_base(folder: str, path: str):
    """Let the adapter in `folder` name the base at `path`, relative to it."""
    name = os.path.join(folder, "adapter_config.json")
    with open(name, encoding="utf-8") as file:
        config = json.load(file)
    config |= {"base_model_name_or_path": path if path.startswith(".") else f"./{path}", "revision": None}
    with open(name, "w", encoding="utf-8") as file:
        json.dump(config, file, indent=2)


class _SavedBases:
    """The bases that a team has with it, each saved once."""

    def __init__(self, folder: str):
        self._folder = os.path.join(folder, BASES)
        self._places: dict[tuple[str, str | None], str] = {}

    def save(self, agent: Agent, model: PeftModel) -> str:
        """Save the base of `agent`'s adapter. Returns where."""
        config = model.peft_config["default"]
        base, revision = config.base_model_name_or_path, config.revision
        if not base:
            raise ValueError(
                f"Agent {agent.name!r}: the base model of its adapter was not loaded from a path, so it cannot be copied. Save it "
                "first and pass its path, or merge the adapter into it (`merge=True`)."
            )
        if (base, revision) not in self._places:
            # As it is on disk: in memory it may have the layers of adapters in it, or another dtype
            name = os.path.basename(os.path.normpath(base))
            taken = sum(os.path.basename(place).startswith(name) for place in self._places.values())
            place = os.path.join(self._folder, f"{name}-{taken + 1}" if taken else name)
            self._places[(base, revision)] = place
            if os.path.abspath(base) == os.path.abspath(place):  # the team had it with it already
                return place
            trust = agent.trust_remote_code
            kwargs: dict[str, Any] = {"dtype": "auto", "revision": revision, "trust_remote_code": trust}
            create_model_from_path(base, device_map=None, **kwargs).save_pretrained(place)
            AutoTokenizer.from_pretrained(base, revision=revision, trust_remote_code=trust).save_pretrained(place)
        return self._places[(base, revision)]
