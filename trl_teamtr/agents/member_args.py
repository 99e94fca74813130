"""The arguments of one member: the team's config, with the agent's own settings."""

import copy
from typing import Any

from ..options.team_options import check_rollout_options
from ..teamtr_config import TeamTRConfig
from .agent import Agent
from .settings import CONFIG_FIELDS, SpeakingSettings, own_init_kwargs


def agent_args(args: TeamTRConfig, agent: Agent, lead: bool, num_trained: int = 1) -> TeamTRConfig:
    """
    The team's config with the agent's own settings. Only the lead logs and saves. `num_trained` is the number of
    trainable agents, which converts stages into updates.

    Raises:
        `ValueError`: If the agent's own settings are not allowed in a config.
    """
    own = copy.copy(args)
    settings = SpeakingSettings.of(args)
    sampling = settings.sampling.with_own(agent)
    for name in (*CONFIG_FIELDS, "generation_kwargs"):
        setattr(own, name, getattr(sampling, name))
    try:
        check_rollout_options(own)
    except ValueError as error:
        raise ValueError(f"Agent {agent.name!r}: {error}") from error
    if args.num_stages is not None:
        own.max_steps = args.num_stages * num_trained  # `Trainer` counts updates
    own.chat_template_kwargs = settings.template_kwargs(agent) or None
    if agent.learning_rate is not None:
        own.learning_rate = agent.learning_rate
    own.trust_remote_code = settings.trusts(agent)
    own.use_vllm = False  # `GRPOTrainer` would start an engine for each agent; the team has a backend for all
    # Already applied to a loaded model, by `load_models` or by the user
    own.model_init_kwargs = (
        (own_init_kwargs(settings.model_init_kwargs, agent) or None) if isinstance(agent.model, str) else None
    )
    if agent.radius_in(args) is None:
        own.monitor_fraction = 0.0  # nothing to monitor, so all rollouts are trained on
    if not agent.trainable:
        own.beta = 0.0  # no update, so no reference model
    if not lead:
        own.report_to, own.log_completions, own.push_to_hub = [], False, False
        own.eval_strategy, own.do_eval, own.load_best_model_at_end = "no", False, False
    return own


def grpo_arguments(agent: Agent, args: TeamTRConfig, processing_class, lead: bool, num_trained: int) -> dict[str, Any]:
    """Arguments of `GRPOTrainer` for a member: its own tokenizer, else the trainer's, else `GRPOTrainer` loads one."""
    return {
        "model": agent.model,
        "args": agent_args(args, agent, lead, num_trained),
        "processing_class": agent.processing_class if agent.processing_class is not None else processing_class,
        "peft_config": agent.peft_config,
    }
