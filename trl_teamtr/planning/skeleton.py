"""Models without weights, made from their configs alone."""

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import transformers
from peft import PeftConfig, PeftModel, get_peft_model
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.utils import find_adapter_config_file
from trl.trainer.utils import add_fused_lm_head

from ..agents.agent import Agent
from ..agents.models import base_of, leaves_base_alone
from ..agents.settings import SpeakingSettings


def make_empty(
    config: PreTrainedConfig, dtype: torch.dtype, attention: str | None = None, trust_remote_code: bool = False
) -> PreTrainedModel:
    """
    A model of the class that TRL loads for `config`, in the present mode or on the present device. Where `attention` is a
    kernel for GPUs, PyTorch's takes its place: it needs as little memory, and is known everywhere.
    """
    own = type(config).from_dict(config.to_dict())
    kind = attention if attention == "eager" else None
    architecture = getattr(transformers, (config.architectures or [""])[0], None)  # as TRL finds it
    if architecture is None:
        return AutoModelForCausalLM.from_config(
            own, dtype=dtype, attn_implementation=kind, trust_remote_code=trust_remote_code
        )
    return architecture._from_config(own, dtype=dtype, attn_implementation=kind)


def make_model(
    config: PreTrainedConfig,
    dtype: torch.dtype,
    attention: str | None,
    trust_remote_code: bool,
    temperature: float,
    peft_config: PeftConfig | None,
    trainable: bool,
    depth: int | None = None,
) -> Any:
    """The model of an agent, with TRL's head and its adapter, and with `depth` of its layers if that is given."""
    model = make_empty(config, dtype, attention, trust_remote_code)
    if depth is not None:
        count = config.get_text_config().num_hidden_layers
        for module in model.modules():
            if isinstance(module, torch.nn.ModuleList) and len(module) == count:
                del module[depth:]
    add_fused_lm_head(model, temperature=temperature, outputs=("log_probs", "entropy"))
    whole: Any = model
    if peft_config is not None:
        own = copy.copy(peft_config)
        own.inference_mode = not trainable  # a saved one says `True`
        whole = get_peft_model(model, own)
    if not trainable:
        whole.requires_grad_(False)
    return whole


@dataclass(frozen=True)
class Skeleton:
    """
    The model of an agent, whose tensors have shapes and no values.

    Args:
        model: The model, with TRL's fused head and, if the agent has one, its adapter.
        config ([`~transformers.PreTrainedConfig`]): Its config.
        trainable (`bool`): Whether the agent is trained.
        base (*optional*): What names the weights that it shares with other agents; `None` if it shares none.
        shared_bytes (`int`): Their bytes.
        widening (`int`): How many times the bytes of `model` the real ones are.
        reads_mask (`bool`): Whether attention reads a mask of all pairs of positions.
        make (`Callable`): Makes the model once more, without values, on the present device.

    All counts are of distinct weights: tied embeddings count once.
    """

    model: Any
    config: PreTrainedConfig
    trainable: bool
    base: Any = None
    shared_bytes: int = 0
    widening: int = 1
    reads_mask: bool = True
    make: Callable[..., Any] = make_model

    @property
    def trained_weights(self) -> list[torch.nn.Parameter]:
        """The weights that are trained."""
        return [weight for weight in self.model.parameters() if weight.requires_grad] if self.trainable else []

    @property
    def num_parameters(self) -> int:
        """Number of weights."""
        return sum(weight.numel() for weight in self.model.parameters())

    @property
    def num_trained(self) -> int:
        """Number of weights that are trained."""
        return sum(weight.numel() for weight in self.trained_weights)

    @property
    def own_bytes(self) -> int:
        """Bytes of the weights and buffers that no other agent holds."""
        return self.bytes_of(self.tensors()) - self.shared_bytes

    @property
    def trained_bytes(self) -> int:
        """Bytes of the weights that are trained."""
        return self.bytes_of(self.trained_weights)

    @property
    def vocab_size(self) -> int:
        """Number of logits at each position."""
        return self.config.get_text_config().vocab_size

    def tensors(self) -> list[torch.Tensor]:
        """All weights and buffers."""
        return [*self.model.parameters(), *self.model.buffers()]

    def bytes_of(self, tensors: Iterable[torch.Tensor]) -> int:
        """Bytes that tensors of the model would have."""
        return _count_bytes(tensors, self.widening)


class SkeletonMaker:
    """
    Makes the models of agents from their configs. No weights are read.

    Args:
        settings ([`SpeakingSettings`]): How the models would be loaded.
        dtype (`torch.dtype`, *optional*): That in which an engine holds them, if it is not that in which they are loaded.
        mode (`FakeTensorMode`): In which tensors have no storage.
    """

    def __init__(self, settings: SpeakingSettings, dtype: torch.dtype | None, mode: FakeTensorMode):
        self._settings, self._dtype, self._mode = settings, dtype, mode
        self._made: dict[Any, Skeleton] = {}

    def make(self, agent: Agent) -> Skeleton:
        """
        The skeleton of an agent. Agents whose models are alike get the same one.

        Raises:
            `FileNotFoundError`, `OSError`: If there is no config.
        """
        model: Any = agent.model
        source, peft_config = model, agent.peft_config
        if isinstance(model, PeftModel):
            peft_config, source = model.peft_config["default"], model.get_base_model()
        elif isinstance(model, str) and find_adapter_config_file(model) is not None:
            peft_config = PeftConfig.from_pretrained(model)
            source = base_of(peft_config, model)
        # A `PeftModel` brings its base with it, which other agents do not get
        shares = (
            peft_config is not None
            and not isinstance(model, PeftModel)
            and self._settings.share_base_model
            and leaves_base_alone(peft_config)
        )
        name = source if isinstance(source, str) else id(source)
        base = (name, self._settings.trusts(agent)) if shares or not isinstance(source, str) else None
        key = (name, str(peft_config), agent.trainable, base, self._settings.trusts(agent))
        if key not in self._made:
            self._made[key] = self._build(source, peft_config, agent, base)
        return self._made[key]

    def _read_config(self, source: Any, agent: Agent) -> tuple[PreTrainedConfig, torch.dtype, str | None]:
        """The config, and the dtype and the kind of attention that the model would be loaded with."""
        if not isinstance(source, str):
            return source.config, source.dtype, source.config._attn_implementation
        kwargs = self._settings.init_kwargs(agent)
        dtype, attention = kwargs.pop("dtype", "float32"), kwargs.pop("attn_implementation", None)  # TRL's default
        kwargs.pop("device_map", None)
        config = AutoConfig.from_pretrained(source, **kwargs)
        if dtype in ("auto", None):
            dtype = config.dtype or torch.float32
        return config, dtype if isinstance(dtype, torch.dtype) else getattr(torch, dtype), attention

    def _build(self, source: Any, peft_config: PeftConfig | None, agent: Agent, base: Any) -> Skeleton:
        config, dtype, attention = self._read_config(source, agent)
        dtype, trusts = self._dtype or dtype, self._settings.trusts(agent)
        temperature, widening = self._settings.sampling.with_own(agent).temperature, 1
        make = partial(make_model, config, dtype, attention, trusts, temperature, peft_config, agent.trainable)
        with torch.device("meta"):
            empty = make_empty(config, dtype, attention, trusts)
            # The operators of experts are known without values in half precision only
            if dtype == torch.float32 and empty._can_set_experts_implementation():
                half = partial(make_model, config, torch.bfloat16, attention, trusts, temperature, peft_config)
                whole, widening = half(agent.trainable), 2
            else:
                whole = make()
        # The base has the same tensors with and without an adapter
        shared_bytes = _count_bytes([*empty.parameters(), *empty.buffers()], 1) if base is not None else 0
        with self._mode:
            _put_on_device(whole)
        masked = attention is None or not attention.startswith("flash")
        return Skeleton(whole, config, agent.trainable, base, shared_bytes, widening, masked, make)


def _count_bytes(tensors: Iterable[torch.Tensor], widening: int) -> int:
    sizes = ((tensor.numel(), tensor.element_size()) for tensor in tensors)
    return sum(number * (size * widening if size == 2 else size) for number, size in sizes)


def _put_on_device(model: torch.nn.Module):
    """
    Replace all tensors of `model`, which are on the meta device, by those of the present mode on its default device, since
    autocast and the kernels of attention follow the device. Tied weights stay tied.
    """
    made: dict[int, torch.Tensor] = {}

    def give(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in made:
            empty = torch.empty(tensor.shape, dtype=tensor.dtype)
            is_weight = isinstance(tensor, torch.nn.Parameter)
            made[id(tensor)] = torch.nn.Parameter(empty, requires_grad=tensor.requires_grad) if is_weight else empty
        return made[id(tensor)]

    for module in list(model.modules()):
        # Some modules keep tensors that are no buffers
        held: list[dict[str, Any]] = [module._parameters, module._buffers, vars(module)]
        for own in held:
            for name, tensor in own.items():
                if isinstance(tensor, torch.Tensor):
                    own[name] = give(tensor)
