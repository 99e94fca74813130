"""The arguments of one member: the team's config, with the agent's own settings."""

import copy
from typing import Any

from ..teamtr_config import TeamTRConfig
from .agent import Agent
from .settings import CONFIG_FIELDS, SpeakingSettings, own_init_kwargs


def agent_args(args: TeamTRConfig, agent: Agent, lead: bool, num_trained: int = 1) -> TeamTRConfig:
    """
    The config of one member: the team's, with the agent's own settings, and logging and saving left to the lead.
    `num_trained` is the number of trainable agents, by which stages become updates.
    """
    own = copy.copy(args)
    if args.num_stages is not None:
        own.max_steps = args.num_stages * num_trained  # what `Trainer` knows
    settings = SpeakingSettings.of(args)
    sampling = settings.sampling.with_own(agent)
    for name in (*CONFIG_FIELDS, "generation_kwargs"):
        setattr(own, name, getattr(sampling, name))
    own.chat_template_kwargs = settings.template_kwargs(agent) or None
    if agent.learning_rate is not None:
        own.learning_rate = agent.learning_rate
    own.trust_remote_code = settings.trusts(agent)
    # Those of a loaded model are used already, by `load_models` or by the user
    own.model_init_kwargs = (
        (own_init_kwargs(args.model_init_kwargs, agent) or None) if isinstance(agent.model, str) else None
    )
    if agent.radius_in(args) is None:
        own.monitor_fraction = 0.0  # nothing to monitor, and so all rollouts are trained on
    if not agent.trainable:
        own.beta = 0.0  # no update, and so no reference model
    if not lead:
        own.report_to, own.log_completions, own.push_to_hub = [], False, False
        own.eval_strategy, own.do_eval, own.load_best_model_at_end = "no", False, False
    return own


def grpo_arguments(agent: Agent, args: TeamTRConfig, processing_class, lead: bool, num_trained: int) -> dict[str, Any]:
    """What `GRPOTrainer` is given for a member; its own tokenizer, else the trainer's, else `GRPOTrainer` loads one."""
    return {
        "model": agent.model,
        "args": agent_args(args, agent, lead, num_trained),
        "processing_class": agent.processing_class if agent.processing_class is not None else processing_class,
        "peft_config": agent.peft_config,
    }
