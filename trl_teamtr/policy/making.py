"""From what a user says of the members to speakers, without a trainer."""

import copy
from collections.abc import Sequence
from typing import Any

from accelerate import Accelerator
from peft import PeftModel, get_peft_model
from transformers import AutoProcessor, PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin
from trl.trainer.utils import get_config_model_id

from ..agents.agent import Agent
from ..agents.model_copies import clone_sharing_weights
from ..agents.models import load_models, load_whole_model
from ..agents.settings import SpeakingSettings
from .policy import Policy, add_scoring_head
from .speaker import Speaker


def make_speakers(
    agents: Sequence[Agent], settings: SpeakingSettings, accelerator: Accelerator, processing_class: Any = None
) -> list[Speaker]:
    """
    A speaker for each of `agents`.

    Args:
        agents (`Sequence[Agent]`): The members, in team order.
        settings ([`SpeakingSettings`]): How they are loaded, sample and read.
        accelerator ([`~accelerate.Accelerator`]): Of the processes that hold the models together.
        processing_class ([`~transformers.PreTrainedTokenizerBase`], *optional*): Tokenizer of agents that have none.
    """
    members = load_members(agents, settings, processing_class)
    return [_make_speaker(agent, settings, accelerator, len(members) == 1) for agent in members]


def load_members(agents: Sequence[Agent], settings: SpeakingSettings, processing_class: Any = None) -> list[Agent]:
    """
    Copies of `agents` with their models and tokenizers. Models that are loaded already serve with their weights, but with
    modules of the copies' own, so that nothing of theirs changes.
    """
    members = [copy.copy(agent) for agent in agents]
    load_models(members, settings, processing_class)
    for given, agent in zip(agents, members, strict=True):
        if isinstance(agent.model, str):
            agent.model = load_whole_model(agent.model, agent, settings)
        elif agent.model is given.model:
            agent.model = clone_sharing_weights(agent.model)
        if agent.peft_config is not None and not isinstance(agent.model, PeftModel):
            agent.model = get_peft_model(agent.model, agent.peft_config)
        agent.peft_config = None
        if agent.processing_class is None:
            found = processing_class if processing_class is not None else _load_processor(agent, settings)
            agent.processing_class = found
    return members


def _make_speaker(agent: Agent, settings: SpeakingSettings, accelerator: Accelerator, alone: bool) -> Speaker:
    model, processor, sampling = agent.model, agent.processing_class, settings.sampling.with_own(agent)
    tokenizer = processor.tokenizer if isinstance(processor, ProcessorMixin) else processor
    agree_on_pad_token(model, tokenizer)
    add_scoring_head(model, sampling.temperature)
    return Speaker(
        agent,
        Policy(accelerator.prepare_model(model, evaluation_mode=True), accelerator),
        tokenizer,
        sampling,
        chat_template_kwargs=settings.template_kwargs(agent),
        max_context_length=settings.max_context_length,
        alone=alone,
        suppressed=find_suppressed_ids(model, processor),
        pad_to_multiple_of=settings.pad_to_multiple_of,
    )


def _load_processor(agent: Agent, settings: SpeakingSettings) -> Any:
    return AutoProcessor.from_pretrained(
        get_config_model_id(agent.model.config),
        revision=(settings.model_init_kwargs or {}).get("revision"),
        truncation_side="left",
        padding_side="left",
        trust_remote_code=settings.trusts(agent),
    )


def agree_on_pad_token(model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase):
    """Let `model` pad as `tokenizer` does, which pads with its end-of-sequence token if it has no other."""
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id


def find_suppressed_ids(model: PreTrainedModel | PeftModel, processor: Any) -> list[int]:
    """Ids that a text must not hold: of a vision-language model, the one that stands for an image."""
    return [model.config.image_token_id] if isinstance(processor, ProcessorMixin) else []
