"""How agents sample, read and are loaded: the settings of a team, overridden by the agents' own."""

from dataclasses import dataclass, field, replace
from typing import Any

from trl import GRPOConfig

from ..teamtr_config import TeamTRConfig
from ..tools import Environments, ToolSettings
from .agent import Agent


# Fields of the config that `Agent.generation_kwargs` may set. TRL computes log-probabilities at the config's
# temperature: passing another to `generate` only would sample from a distribution that is not the trained one.
CONFIG_FIELDS = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_completion_length")


@dataclass(frozen=True)
class SamplingSettings:
    """
    The distribution of a message, given logits, and how `generate` computes it. Fields and defaults are those of
    [`~trl.GRPOConfig`].

    Args:
        temperature, top_p, top_k, min_p, repetition_penalty: The transforms of the logits.
        max_completion_length (`int`, *optional*): Maximum number of tokens of a message. `None` for what room its
            context has left.
        generation_kwargs (`dict`, *optional*): Other arguments of [`~transformers.GenerationConfig`].
        cache_implementation (`str`, *optional*): How `generate` stores keys and values.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float | None = None
    repetition_penalty: float = 1.0
    max_completion_length: int | None = 512
    generation_kwargs: dict[str, Any] | None = None
    cache_implementation: str | None = None

    @classmethod
    def of(cls, args: GRPOConfig) -> "SamplingSettings":
        """The settings of `args`."""
        own = {name: getattr(args, name) for name in (*CONFIG_FIELDS, "generation_kwargs", "cache_implementation")}
        return cls(**own)

    def with_own(self, agent: Agent) -> "SamplingSettings":
        """These settings, overridden by those of `agent`."""
        kwargs = {**(self.generation_kwargs or {}), **(agent.generation_kwargs or {})}
        if "max_new_tokens" in kwargs:  # another name for it
            kwargs.setdefault("max_completion_length", kwargs.pop("max_new_tokens"))
        fields = {name: kwargs.pop(name) for name in CONFIG_FIELDS if name in kwargs}
        return replace(self, **fields, generation_kwargs=kwargs or None)


@dataclass(frozen=True)
class SpeakingSettings:
    """
    What a team needs to speak, with or without a trainer. Fields and defaults are those of [`TeamTRConfig`].

    Args:
        sampling ([`SamplingSettings`]): How agents without settings of their own sample.
        chat_template_kwargs (`dict`, *optional*): Keyword arguments for all chat templates.
        max_context_length (`int`, *optional*): Maximum number of tokens of an agent's view.
        template_date (`str`, *optional*): Date that chat templates print, as `YYYY-MM-DD`; today if not given.
        model_init_kwargs (`dict`, *optional*): How models are loaded.
        quantization_config (*optional*): How their weights are quantized.
        trust_remote_code (`bool`): Whether to run code that comes with the models.
        share_base_model (`bool`): Whether LoRA agents that name the same base model share its weights in memory.
        pad_to_multiple_of (`int`, *optional*): If set, batches are padded to a multiple of it.
        generation_cache_gib (`float`, *optional*): GiB that the keys and values of a batch may take in generation.
        speaking_precision (`str`, *optional*): Precision of generation; that of the accelerator if not given.
        dtypes (`dict[str, str]`, *optional*): Dtypes in which the models of the named agents are loaded.
        tools ([`ToolSettings`]): How tools are called.
        environments ([`Environments`], *optional*): On which they act.
    """

    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    chat_template_kwargs: dict[str, Any] | None = None
    max_context_length: int | None = None
    template_date: str | None = None
    model_init_kwargs: dict[str, Any] | None = None
    quantization_config: Any = None
    trust_remote_code: bool = False
    share_base_model: bool = True
    pad_to_multiple_of: int | None = None
    generation_cache_gib: float | None = None
    speaking_precision: str | None = None
    dtypes: dict[str, str] | None = None
    tools: ToolSettings = field(default_factory=ToolSettings)
    environments: Environments | None = None

    @classmethod
    def of(
        cls, args: TeamTRConfig, quantization_config: Any = None, environments: Environments | None = None
    ) -> "SpeakingSettings":
        """The settings of `args`."""
        own: Any = args  # `GRPOConfig` also allows strings, which it parses when it is made
        return cls(
            SamplingSettings.of(args),
            own.chat_template_kwargs,
            args.max_context_length,
            args.template_date,
            own.model_init_kwargs,
            quantization_config,
            args.trust_remote_code,
            args.share_base_model,
            own.pad_to_multiple_of,
            args.generation_cache_gib,
            args.speaking_precision,
            tools=ToolSettings.of(args),
            environments=environments,
        )

    def as_spoken(self, args: TeamTRConfig) -> "SpeakingSettings":
        """These settings, with the precision in which a run with `args` speaks, for those who speak without its accelerator."""
        own = {"bf16": "bfloat16", "fp16": "float16"}.get(args.mixed_precision)
        return replace(self, speaking_precision=self.speaking_precision or own)

    def trusts(self, agent: Agent) -> bool:
        """Whether to run code that comes with the model of `agent`."""
        return self.trust_remote_code or agent.trust_remote_code

    def init_kwargs(self, agent: Agent) -> dict[str, Any]:
        """Arguments for loading the model of `agent`; a copy, since TRL modifies the dict."""
        quantization = {} if self.quantization_config is None else {"quantization_config": self.quantization_config}
        dtype = (self.dtypes or {}).get(agent.name)
        return {
            "trust_remote_code": self.trusts(agent),
            **own_init_kwargs(self.model_init_kwargs, agent),
            **quantization,
            **({} if dtype is None else {"dtype": dtype}),
        }

    def template_kwargs(self, agent: Agent) -> dict[str, Any]:
        """Keyword arguments for the chat template of `agent`."""
        return {**(self.chat_template_kwargs or {}), **(agent.chat_template_kwargs or {})}


def own_init_kwargs(model_init_kwargs: dict[str, Any] | None, agent: Agent) -> dict[str, Any]:
    """
    `model_init_kwargs` for the model of `agent`, whose code may be trusted if that of others is not. A frozen agent needs no
    weights wider than its checkpoint's.
    """
    return {
        **({} if agent.trainable else {"dtype": "auto"}),
        **(model_init_kwargs or {}),
        **({"trust_remote_code": True} if agent.trust_remote_code else {}),
    }
