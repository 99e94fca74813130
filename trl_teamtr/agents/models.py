"""Models of the members: adapters are loaded onto their base, which agents share if possible."""

import os
import re
from collections.abc import Sequence
from typing import Any

from accelerate import PartialState
from accelerate.utils import DistributedType
from peft import PeftConfig, PeftModel
from torch import nn
from transformers import AutoTokenizer, PreTrainedModel
from transformers.utils import find_adapter_config_file
from trl.trainer.utils import create_model_from_path, get_config_model_id

from .agent import Agent
from .model_copies import clone_sharing_weights, copy_untouched
from .settings import SpeakingSettings


def load_models(agents: Sequence[Agent], settings: SpeakingSettings, processing_class: Any = None):
    """
    Load, in place, the base models of `agents` with adapters, and saved adapters onto them. LoRA agents with the same
    base share it. Paths of whole models are kept, for `GRPOTrainer` or [`load_whole_model`]. The tokenizer of an adapter,
    or of a directory without an image processor, is loaded unless the agent has one or `processing_class` is given. Of remote
    members nothing is loaded.

    Raises:
        `FileNotFoundError`: If a path is not a directory, or the base of an adapter is not there.
        `ValueError`: If a directory holds an adapter and whole weights, or an adapter is not called "default".
    """
    bases = _Bases(settings)
    # A base that is shared has the dtype of the trainable ones
    for agent in sorted((agent for agent in agents if not agent.is_remote), key=lambda agent: not agent.trainable):
        model = agent.model
        if isinstance(model, PeftModel):
            _check_adapter_name(model, agent)
        if isinstance(model, str) and _is_lost(model):
            raise FileNotFoundError(f"Agent {agent.name!r}: there is no model directory {model!r}.")
        tokenizer_folder = None
        if isinstance(model, str) and find_adapter_config_file(model) is not None:
            base = _load_adapter(agent, model, bases)
            tokenizer_folder = model if os.path.isfile(os.path.join(model, "tokenizer_config.json")) else base
        elif agent.peft_config is not None and not isinstance(model, PeftModel):
            agent.model = bases.give(model, agent.peft_config, agent)
        # Where TRL's `AutoProcessor` would look for the image processor of a vision-language model, although the team that
        # saved it was given its tokenizer only
        if tokenizer_folder is None and isinstance(model, str) and _holds_tokenizer_alone(model):
            tokenizer_folder = model
        if tokenizer_folder is not None and agent.processing_class is None and processing_class is None:
            agent.processing_class = AutoTokenizer.from_pretrained(
                tokenizer_folder, padding_side="left", trust_remote_code=settings.trusts(agent)
            )


def _load_adapter(agent: Agent, folder: str, bases: "_Bases") -> str:
    """Load the adapter in `folder` onto its base. Returns the path of the base."""
    _refuse_two_models(folder, agent)
    peft_config = PeftConfig.from_pretrained(folder)
    base = base_of(peft_config, folder)
    _check_base(base, folder, agent)
    try:
        given = bases.give(base, peft_config, agent)
    except OSError as error:  # of the hub
        raise FileNotFoundError(
            f"Agent {agent.name!r}: the base model {base!r} of the adapter in {folder!r} cannot be loaded: {error}"
        ) from error
    agent.model = PeftModel.from_pretrained(given, folder, is_trainable=agent.trainable)
    agent.model.peft_config["default"].base_model_name_or_path = base  # it may be saved in another place
    return base


def base_of(peft_config: PeftConfig, folder: str) -> Any:
    """
    Path or id of the base of the adapter in `folder`, `None` if it says none. One that begins with a dot is looked for from the
    folder first: a team may have its bases with it.
    """
    base = peft_config.base_model_name_or_path
    beside = os.path.abspath(os.path.join(folder, base)) if base is not None and base.startswith(".") else ""
    return beside if os.path.isdir(beside) else base


def _holds_tokenizer_alone(folder: str) -> bool:
    """Whether a directory has a tokenizer, and no processor of other inputs."""
    there = set(os.listdir(folder)) if os.path.isdir(folder) else set()
    return "tokenizer_config.json" in there and not there & {"preprocessor_config.json", "processor_config.json"}


def _is_lost(path: str) -> bool:
    """Whether `path` can only be a directory, since a hub id has at most one slash, and there is none."""
    return path.count("/") != 1 and bool(os.path.dirname(path)) and not os.path.isdir(path)


def _check_adapter_name(model: PeftModel, agent: Agent):
    """Raise `ValueError` unless the adapter is the one that TRL trains, and that is saved where it is looked for."""
    if model.active_adapters != ["default"]:
        raise ValueError(
            f"Agent {agent.name!r}: the active adapter of its `PeftModel` is {', '.join(map(repr, model.active_adapters))}, but "
            "TRL trains the one that is called 'default', and PEFT saves others in a folder within the agent's. Load it "
            "under that name, which is PEFT's own: leave `adapter_name` out."
        )


def _check_base(base: Any, path: str, agent: Agent):
    """Raise unless the base of the adapter at `path` is named, and there if it is a directory."""
    if base is None:
        raise ValueError(
            f"Agent {agent.name!r}: the adapter in {path!r} does not say of which base model it is "
            "(`base_model_name_or_path` in adapter_config.json). Fill it in."
        )
    if _is_lost(base):
        raise FileNotFoundError(
            f"Agent {agent.name!r}: the base model {base!r} of the adapter in {path!r} is not there. Put it back, or write "
            "its new place into `base_model_name_or_path` in adapter_config.json."
        )


def _refuse_two_models(folder: str, agent: Agent):
    """Raise `ValueError` if a folder holds whole weights beside an adapter: one of them is of another training."""
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    whole = [name for name in names if re.fullmatch(r"(pytorch_)?model([.-].*)?\.(safetensors|bin)", name)]
    if whole:
        raise ValueError(
            f"Agent {agent.name!r}: {folder!r} holds an adapter (adapter_config.json) and whole weights ({', '.join(whole)}). "
            "One of them was left by another training. Remove the files of the one that is not wanted."
        )


def load_whole_model(path: str, agent: Agent, settings: SpeakingSettings) -> PreTrainedModel:
    """The model of `agent` at `path`, on one device, as TRL loads it."""
    kwargs = settings.init_kwargs(agent)
    # `create_model_from_path` would spread it over all devices
    if PartialState().distributed_type in (DistributedType.MULTI_GPU, DistributedType.DEEPSPEED):
        kwargs["device_map"] = None
    return create_model_from_path(path, **kwargs)


def check_trainable_weights(model: nn.Module, agent: Agent):
    """Raise `ValueError` if `agent` is to be trained, and its model has nothing to train."""
    if agent.trainable and not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(
            f"Agent {agent.name!r} is trainable, but none of the weights of its model are: all have `requires_grad=False`. "
            "Load an adapter with `is_trainable=True` (as its path does), unfreeze the model, or set `trainable=False`."
        )


def base_is_lost(model: Any) -> bool:
    """Whether a saved adapter of `model` could not be loaded again, because its base has no path."""
    if not isinstance(model, PeftModel):
        return False
    base: Any = model.get_base_model()
    return not get_config_model_id(base.config)


class _Bases:
    """Base models of adapters. Agents get clones over the same weights, unless an adapter changes them."""

    def __init__(self, settings: SpeakingSettings):
        self._settings = settings
        self._shared: dict[Any, PreTrainedModel] = {}

    def give(self, base: str | PreTrainedModel, peft_config: PeftConfig, agent: Agent) -> PreTrainedModel:
        """A clone over the weights of `base`, or a separate base for an adapter that would change them."""
        if not (self._settings.share_base_model and leaves_base_alone(peft_config)):
            return self._load(base, agent) if isinstance(base, str) else copy_untouched(base)
        # An agent that does not trust remote code must not get a model that was loaded with it
        key = (base, agent.trust_remote_code) if isinstance(base, str) else id(base)
        if key not in self._shared:
            self._shared[key] = self._load(base, agent) if isinstance(base, str) else base
        # Clones are made of the unwrapped model: wrapping one must not affect the next
        return clone_sharing_weights(self._shared[key])

    def _load(self, base: str, agent: Agent) -> PreTrainedModel:
        return load_whole_model(base, agent, self._settings)


def leaves_base_alone(peft_config: PeftConfig) -> bool:
    """Whether an adapter neither trains weights of its base nor initially rewrites them, as PiSSA and OLoRA do."""
    fields = vars(peft_config)
    own_init = (True, False, "gaussian", "orthogonal")
    return fields.get("bias", "none") == "none" and fields.get("init_lora_weights", True) in own_init
