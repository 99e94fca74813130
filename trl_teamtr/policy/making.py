"""Makes speakers of agents, without a trainer."""

import copy
import sys
from collections.abc import Callable, Sequence
from typing import Any

from accelerate import Accelerator
from peft import PeftModel, get_peft_model
from transformers import AutoProcessor, PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin
from trl.trainer.utils import get_config_model_id

from ..agents.agent import Agent
from ..agents.model_copies import clone_sharing_weights
from ..agents.models import load_models, load_whole_model
from ..agents.settings import SamplingSettings, SpeakingSettings
from ..conversation.thoughts import ThoughtParser, find_parser
from ..tools import Environments, ToolUser
from .backend import PlainBackend
from .participant import Participant
from .plain_sampling import drop_sampling_defaults
from .policy import Policy, add_scoring_head
from .remote import make_remote_speaker
from .speaker import Speaker


def make_speakers(
    agents: Sequence[Agent], settings: SpeakingSettings, accelerator: Accelerator, processing_class: Any = None
) -> list[Participant]:
    """
    A speaker for each of `agents`; a [`RemoteSpeaker`] for those with an endpoint.

    Args:
        agents (`Sequence[Agent]`): The members, in team order.
        settings ([`SpeakingSettings`]): How they are loaded, sample and read.
        accelerator ([`~accelerate.Accelerator`]): Of the processes that hold the models together.
        processing_class ([`~transformers.PreTrainedTokenizerBase`], *optional*): Tokenizer of agents that have none.
    """
    members = load_members(agents, settings, processing_class)
    alone = len(members) == 1
    return [
        (make_remote_speaker if agent.is_remote else _make_speaker)(agent, settings, accelerator, alone)
        for agent in members
    ]


def load_members(agents: Sequence[Agent], settings: SpeakingSettings, processing_class: Any = None) -> list[Agent]:
    """
    Copies of `agents` with their models and tokenizers. Models that are already loaded are cloned: a clone shares
    their weights and has its own modules, so the originals are not modified. Remote members have none.
    """
    members = [copy.copy(agent) for agent in agents]
    load_models(members, settings, processing_class)
    for given, agent in zip(agents, members, strict=True):
        if agent.is_remote:
            continue
        model = agent.model
        if isinstance(model, str):
            model = load_whole_model(model, agent, settings)
        elif model is given.model:
            model = clone_sharing_weights(model)
        if agent.peft_config is not None and not isinstance(model, PeftModel):
            model = get_peft_model(model, agent.peft_config)
        agent.model, agent.peft_config = model, None
        if agent.processing_class is None:
            found = processing_class if processing_class is not None else _load_processor(model, agent, settings)
            agent.processing_class = found
    return members


def _make_speaker(agent: Agent, settings: SpeakingSettings, accelerator: Accelerator, alone: bool) -> Speaker:
    model: Any = agent.model  # `load_members` has loaded it
    add_scoring_head(model, settings.sampling.with_own(agent).temperature)
    prepared = accelerator.prepare_model(model, evaluation_mode=True)
    policy = Policy(prepared, accelerator, speaking_precision=settings.speaking_precision)
    return make_speaker(agent, policy, agent.processing_class, settings, alone)


def make_policy(model: PreTrainedModel | PeftModel, accelerator: Accelerator, args: Any) -> Policy:
    """The policy of a member in training; `args` is its [`TeamTRConfig`], whose fields are declared as text too."""
    gradient_checkpointing, gather = args.gradient_checkpointing_kwargs, args.ds3_gather_for_generation
    precisions = args.scoring_precision, args.speaking_precision
    return Policy(model, accelerator, gradient_checkpointing, gather, *precisions)


def make_speaker(
    agent: Agent,
    policy: Policy,
    processing_class: Any,
    settings: SpeakingSettings,
    alone: bool,
    before_use: Callable[[], None] | None = None,
) -> Speaker:
    """
    The speaker of an agent, and its generation backend.

    Args:
        agent ([`Agent`]): The member.
        policy ([`Policy`]): Its model.
        processing_class: Its tokenizer, or the processor of a vision-language model.
        settings ([`SpeakingSettings`]): The team's, which the agent's own override.
        alone (`bool`): Whether the team has one agent.
        before_use (`Callable[[], None]`, *optional*): Called before its weights are needed.
    """
    is_processor = isinstance(processing_class, ProcessorMixin)
    tokenizer = processing_class.tokenizer if is_processor else processing_class
    check_model(policy.model, tokenizer, agent)
    agree_on_pad_token(policy.model, tokenizer)
    sampling = settings.sampling.with_own(agent)
    eos_token_ids = find_eos_token_ids(policy.model, tokenizer, sampling)
    config: Any = policy.model.config
    suppressed = [config.image_token_id] if is_processor else []  # an image token would have no image
    length = find_max_view_length(config, settings.max_context_length)
    if sampling.max_completion_length is None and length == sys.maxsize:
        raise ValueError(
            f"Agent {agent.name!r} has `max_completion_length=None`, and nothing limits its messages: its model has no maximum "
            "length. Set `max_completion_length` or `max_context_length`."
        )
    backend = PlainBackend(
        policy,
        tokenizer,
        eos_token_ids,
        sampling,
        suppressed,
        settings.pad_to_multiple_of,
        length,
        settings.generation_cache_gib,
        before_use,
    )
    drop_sampling_defaults(policy.model, backend.config, agent.name)
    speaker = Speaker(
        agent,
        policy,
        backend,
        tokenizer,
        eos_token_ids,
        sampling,
        settings.template_kwargs(agent),
        length,
        alone,
        before_use,
        *_make_parsers(agent, tokenizer, eos_token_ids, settings, alone),
    )
    speaker.fix_date(settings.template_date)
    return speaker


def _make_parsers(
    agent: Agent, tokenizer: PreTrainedTokenizerBase, eos_token_ids: list[int], settings: SpeakingSettings, alone: bool
) -> tuple[ThoughtParser | None, ToolUser | None]:
    """What divides the messages of `agent` into thoughts, calls and answers."""
    callables = list_tools(agent, settings.environments)
    private = agent.thoughts == "private" and (callables or not alone or not agent.keep_thoughts)
    thoughts = find_parser(tokenizer, agent.thinking_end, eos_token_ids) if private else None
    if thoughts is None and not agent.keep_thoughts:
        raise ValueError(
            f"Agent {agent.name!r} has `keep_thoughts=False`, but neither its tokenizer nor TRL knows how its chat template writes "
            "thoughts. Set `thinking_end`, e.g. '</think>', or leave `keep_thoughts=True`."
        )
    if not callables:
        return thoughts, None
    shows_tools = agent.tool_visibility == "all"
    return thoughts, ToolUser(agent.name, callables, tokenizer, settings.tools, thoughts, shows_tools)


def list_tools(agent: Agent, environments: Environments | None) -> list[Callable]:
    """The functions of `agent`, and the methods of its environments that are its tools."""
    methods = [] if environments is None else environments.tools_of(agent.name)
    return [tool for tool in agent.tools or [] if not isinstance(tool, str)] + methods


def _load_processor(model: PreTrainedModel | PeftModel, agent: Agent, settings: SpeakingSettings) -> Any:
    config: Any = model.config
    return AutoProcessor.from_pretrained(
        get_config_model_id(config),
        revision=(settings.model_init_kwargs or {}).get("revision"),
        truncation_side="left",
        padding_side="left",
        trust_remote_code=settings.trusts(agent),
    )


def check_model(model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase, agent: Agent):
    """Raise `ValueError` unless `model` is a decoder that knows all ids that `tokenizer` can give it."""
    config: Any = model.config
    if config.is_encoder_decoder:
        raise ValueError(
            f"The model of agent {agent.name!r} is an encoder-decoder ({type(model).__name__}), but agents are causal language "
            "models. Use another."
        )
    largest, size = _largest_id(tokenizer), config.get_text_config().vocab_size
    if largest >= size:
        raise ValueError(
            f"The tokenizer of agent {agent.name!r} has ids up to {largest}, but the embeddings of its model have {size} "
            "entries. Use the model's own tokenizer, or `model.resize_token_embeddings(len(tokenizer))`."
        )


def _largest_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """
    The largest id that a conversation can contain. Control tokens that the template does not write are left out: Gemma 3
    has one for images beyond the embeddings of its text models, and in a message its text is spelled out.
    """
    used = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    template = str(tokenizer.chat_template or "")
    control = {index: str(token) for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    unused = {index for index, text in control.items() if index not in used and text not in template}
    return max(set(tokenizer.get_vocab().values()) - unused)


def agree_on_pad_token(model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase):
    """Set the pad token of `model` to that of `tokenizer`, which is its end-of-sequence token if it has no other."""
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id


def find_eos_token_ids(model: Any, tokenizer: PreTrainedTokenizerBase, sampling: SamplingSettings) -> list[int]:
    """
    Ids that end a message: those of `generation_kwargs` if it has some; else the tokenizer's, and those of the model's
    generation config.
    """
    given = (sampling.generation_kwargs or {}).get("eos_token_id")
    own = model.generation_config.eos_token_id if given is None else given
    ids = [own] if isinstance(own, int) else list(own or [])
    if given is not None:
        return ids
    return ids if tokenizer.eos_token_id in ids else [tokenizer.eos_token_id, *ids]


def find_max_view_length(config: Any, max_context_length: int | None) -> int:
    """Maximum number of tokens of a view: `max_context_length`, or what the model of `config` allows if that is less."""
    # Not every model family has it, and some configs map the attribute to another name
    limit = getattr(config.get_text_config(), "max_position_embeddings", None)
    limits = [length for length in (max_context_length, limit) if length is not None]
    return min(limits) if limits else sys.maxsize
