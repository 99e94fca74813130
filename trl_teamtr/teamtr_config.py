"""The configuration of a team run: every field of TRL's `GRPOConfig`, and those that a team adds."""

import warnings
from dataclasses import dataclass, field
from typing import Any

from trl import GRPOConfig

from .options.advantage_options import AdvantageOptions
from .options.diagnostics_options import DiagnosticsOptions
from .options.launch import check_precision, offloads_optimizer, refuse_abandoned_build, uses_deepspeed
from .options.masking import mask_secrets
from .options.team_options import (
    KL_CONTROLLERS,
    KL_ESTIMATORS,
    PRECISIONS,
    RADIUS_SCHEDULES,
    RESAMPLINGS,
    ROUTERS,
    UPDATE_ORDERS,
    check_team_options,
)
from .options.unsupported import refuse_unsupported
from .options.vllm_options import check_vllm_options


@dataclass
class TeamTRConfig(AdvantageOptions, DiagnosticsOptions, GRPOConfig):
    r"""
    Configuration class for the [`TeamTRTrainer`].

    It inherits every parameter of [`~trl.GRPOConfig`] and adds those of the team, the rollout and the trust region.
    These inherited parameters have another meaning for a team:

    - `max_steps`, `logging_steps`, `save_steps`, `eval_steps` count agent *updates*; a stage has one update for each
      trainable agent.
    - `max_completion_length` is per message. With `None` a message may fill what room its context has left, up to
      `max_context_length` or the model's own limit.
    - `warmup_steps` and the schedule of the learning rate count the updates of one agent, as many as there are stages.
    - `num_iterations` is the largest number of inner iterations of an update. One is a pass over the generation batch
      in `steps_per_generation` micro-batches. It defaults to 4, since the KL penalty has no gradient in the first one.
    - `gradient_accumulation_steps` is the number of micro-batches of an optimizer step, at most
      `steps_per_generation`, which is its default: a pass is one step. If it is smaller, a pass has several steps (its
      last one the rest), the log-probabilities before the update are computed first, and the KL of all messages is
      measured after each step.

    Parameters:
        > Parameters that control the stages

        num_stages (`int`, *optional*):
            Number of stages. Exclusive with `max_steps`. If neither is given, `num_train_epochs` decides.
        update_order (`str`, *optional*, defaults to `"sequential"`):
            Order σ in which a stage updates the agents: `"sequential"` (team order), `"reversed"` or `"random"` (a
            new one at each stage).

        > Parameters that control the rollouts

        num_agents (`int`, *optional*):
            Number of agents of a homogeneous team, when `model` is a single model.
        num_rounds (`int`, *optional*, defaults to `1`):
            Number of rounds. A rollout has at most `num_rounds * number of agents` turns.
        resampling (`str`, *optional*):
            What is generated before each update but a stage's first, which has entirely fresh rollouts. Defaults to
            `"speculative"`, and to `"full"` where that is not possible (dropout, or a sampling transform other than
            temperature, top-k, top-p and min-p) or there is nothing to reuse (one trained agent). `"full"`: all.
            `"suffix"`: from the last updated agent's first turn on. `"speculative"`: only what the updated team would
            generate differently, found by block verification. All three have the updated team's distribution
            (intermediate occupancy). The others are baselines, not TeamTR. `"stale"`: nothing; all updates of a stage
            use its first rollouts. `"joint"`: the same, since updating all agents at once on the same rollouts equals
            updating them one after another, as long as each has its own parameters. `"importance"`: nothing; each
            rollout is weighted by its probability under the team updated so far over that at the stage's start.
        resample_every (`int`, *optional*, defaults to `1`):
            With `resampling="full"`: number of updates of a stage from one resampling to the next. Above 1 it is a
            baseline, between `"full"` and `"stale"`.
        importance_clip (`float`, *optional*, defaults to `10.0`):
            With `resampling="importance"`: the largest weight of a rollout. `None` for no clipping.
        max_turns (`int`, *optional*):
            Number of turns after which a rollout ends, if it should differ from `num_rounds * number of agents`.
        router (`str`, *optional*, defaults to `"round_robin"`):
            Who speaks next: `"round_robin"` (team order) or `"random"` (uniform). A custom router is an argument of
            the trainer.
        stop_string (`str`, *optional*):
            End a rollout after the first message that contains this string.
        max_context_length (`int`, *optional*):
            Longest view of an agent, in tokens, the next message included. Defaults to the model's own limit. If it
            would be exceeded, the oldest messages of other agents that the agent has not read yet are left out; if
            that is not enough, the rollout ends. The metrics count both.
        template_date (`str`, *optional*):
            Date that chat templates print, as `YYYY-MM-DD`. Defaults to the day on which the run begins; a resumed run
            keeps that of its checkpoint.
        allow_silent_agents (`bool`, *optional*, defaults to `False`):
            Whether to accept a trainable agent that the router never calls in a dry run on empty messages. Set it for
            a router that calls an agent only on some texts.
        share_base_model (`bool`, *optional*, defaults to `True`):
            Whether LoRA agents that name the same base model share its weights in memory.
        offload_idle_agents (`bool`, *optional*, defaults to `False`):
            Whether to keep the weights of agents that neither generate nor train in CPU memory. Not supported with
            DeepSpeed.
        generation_cache_gib (`float`, *optional*):
            GiB that the keys and values of the rows that are generated together may take, on each process. More rows take
            several batches, those of similar length together. Defaults to half of the memory that is free on the GPU when
            an agent first speaks, rounded down to a power of two, and to 4 on a CPU.
        vllm_sync_dir (`str`, *optional*):
            With `use_vllm=True`: where changed weights are written for the vLLM servers, which must see it under the same
            path; with `vllm_mode="colocate"` adapters, for all processes. Defaults to `.vllm` in `output_dir`. On one machine, a
            folder in memory is faster.
        vllm_max_logp_difference (`float`, *optional*, defaults to `1.0`):
            With `use_vllm=True`: each time that weights are published, the agent says a few short messages, and the run stops
            if the log-probability of a token by vLLM and by the policy here differ by more than this, in nats: vLLM then
            speaks with other weights. With float32 on both sides 0.01 is enough. `None` for no check.
        reward_timeout (`float`, *optional*):
            Seconds that one call of a reward function may take before the run stops with a `TimeoutError`. With it,
            functions that are not async are called in a separate thread. `None` waits forever.
        tool_timeout (`float`, *optional*):
            Likewise for a call of a tool; the agent then reads an error. `max_tool_calling_iterations` is per message.
        max_tool_result_length (`int`, *optional*, defaults to `512`):
            Maximum number of tokens of a tool's result. Longer ones are cut; a tool is called only if there is room for it.

        > Parameters that control the trust region

        trust_region_radius (`float`, *optional*, defaults to `0.01`):
            Radius δ: the largest KL(π_cur ‖ π_new) of an accepted update, in nats per message. `None` for no trust
            region.
        radius_schedule (`str`, *optional*, defaults to `"uniform"`):
            `"uniform"`: δ bounds the mean KL of an agent's messages. `"horizon"`: each of its turns has its own
            radius, larger where fewer of them follow, with the total penalty in the improvement bound of a radius δ at
            each turn (docs/theory.md). The logged `kl` is then δ times the largest ratio of a turn's KL to its radius.
        kl_estimator (`str`, *optional*):
            Estimator of the KL that decides on acceptance: `"k3"` (on the sampled tokens) or `"exact"` (over the full
            vocabulary, with two forward passes per measurement). Defaults to `"k3"`, and to `"exact"` for agents that
            sample with `top_p`, `top_k`, `min_p` or another transform than the temperature, where k3 is biased. The
            penalty and the early stop always use k3.
        scoring_precision (`str`, *optional*, defaults to `"float32"`):
            Precision of the forward passes that the trust region decides by: KLs, verification, importance weights.
            `"float32"`, `"float16"` or `"bfloat16"`. In float32, low-precision weights are widened, and products are TF32
            only with `tf32=True`, which is faster on GPUs and blurs small KLs (docs/method.md). Training passes and
            generation keep the mixed precision of the run. In bfloat16 the KL of two equal policies is measured at about
            1 nat per 1,000 tokens.
        speaking_precision (`str`, *optional*):
            Precision in which agents sample their messages: `"float32"`, `"float16"` or `"bfloat16"`. Defaults to the mixed
            precision of the run, and weights as they are. Compare `sampling/kl`: float16 is much nearer to what is scored
            than bfloat16 (docs/method.md), as long as no activation exceeds 65,504.
        floor_every (`int`, *optional*, defaults to `50`):
            Number of stages from one measurement of the KL's floor, `agent/{name}/kl_floor`, to the next: the KL that is
            measured between two policies that are equal but for rounding. A radius below three floors is an error.
        kl_coef (`float`, *optional*, defaults to `0.1`):
            Initial coefficient β of the KL penalty. 0 for no penalty.
        kl_controller (`str`, *optional*, defaults to `"adaptive"`):
            `"adaptive"` multiplies β by `1 + clip(KL / radius - 1, -0.2, 0.2)` after each update, with the KL before
            backtracking. `"fixed"` keeps β constant.
        enforce_radius (`bool`, *optional*, defaults to `True`):
            Whether an update stops early and is backtracked if it leaves the radius. `False` is a baseline: the KL is
            measured, and an adaptive `kl_coef` follows it, but the update is not constrained.
        monitor_fraction (`float`, *optional*, defaults to `0.0`):
            Share of each micro-batch that is excluded from the gradient. The KL is measured on it and on the rest, and
            the larger one decides: the KL on the rollouts that an update is trained on is slightly optimistic. Agents
            without a radius train on all.
        max_backtracks (`int`, *optional*, defaults to `10`):
            Number of times an update that is outside the radius is halved before it is rejected.
        max_idle_updates (`int`, *optional*, defaults to `5`):
            Number of idle updates of one agent in a row that end the run with an error: updates that were rejected, or
            changed no weight, although some advantage was not 0. Each is logged as `agent/{name}/idle` and warned of.
            `None` for no limit.

        > Parameters that control the advantages

        advantage_clip (`float`, *optional*, defaults to `3.0`):
            A_clip: advantages are clipped to `[-advantage_clip, advantage_clip]`. `None` for no clipping.
        advantage_epsilon (`float`, *optional*, defaults to `1e-6`):
            ε_norm, added to the variance of the group's returns.
        advantage_group (`str`, *optional*, defaults to `"rollout"`):
            What has a common baseline. `"rollout"`: `num_generations` independent rollouts of a prompt. `"turn"`: one of them
            and `num_generations - 1` branches, which part from it at a turn of the agent that is updated and are finished by
            the team as it is (docs/method.md says where that is the better use of tokens). Needs `scale_rewards="none"`,
            `loss_type="dr_grpo"` and, with environments, `snapshot` and `restore` or `deterministic = True`.
        credit (`str`, *optional*, defaults to `"suffix"`):
            With `advantage_group="turn"`. `"suffix"`: branches part at the agent's first turn; from there on all its messages
            are trained. `"message"`: they part at one of its turns, drawn uniformly, and only that message is trained.

        > Parameters that control the reports and the diagnostics

        report (`bool`, *optional*, defaults to `False`):
            Whether to write `report.html` into `output_dir` when the training ends, also where it is interrupted.
        log_message_values (`int`, *optional*, defaults to `0`):
            Number of held-out rollouts at each evaluation whose messages are valued, for the report: how much better the
            team does from a message on than when its author speaks anew. Needs `eval_dataset`.
        message_value_rollouts (`int`, *optional*, defaults to `16`):
            Number of rollouts from each of these messages, and of those in which its author speaks anew.
        log_occupancy (`bool`, *optional*, defaults to `False`):
            Whether to measure the shift of the agents' occupancy in a stage, and the error that stale rollouts would
            have: `occupancy/...` in the logs.
        log_certificate (`bool`, *optional*, defaults to `False`):
            Whether to measure, for each update, the surrogate, the penalty and the value of the improvement bound, and
            the improvement on held-out prompts: `certificate/...` in the logs. Needs `eval_dataset`.
        certificate_prompts (`int`, *optional*, defaults to `128`):
            Number of rows of `eval_dataset`, with one rollout each after each update of a measured stage.
        certificate_gamma (`float`, *optional*):
            Discount per turn: also log the paper's discounted form of the bound.
        advantage_bound (`float`, *optional*, defaults to `1.0`):
            A_max: width of an interval that contains all returns, and with `certificate_gamma` also 0. 1 for rewards
            between 0 and 1.
        diagnostics_every (`int`, *optional*, defaults to `10`):
            Number of stages from one that is measured to the next; the first one is measured. A measured stage costs
            more than one additional rollout of the team per update.

    > [!NOTE]
    > These parameters have default values different from [`~trl.GRPOConfig`]: `num_iterations` (4 instead of 1),
    > `gradient_accumulation_steps` (`steps_per_generation` instead of 1) and `disable_dropout` (`True` instead of
    > `False`: with dropout, the KL of two equal policies is not 0).
    """

    num_iterations: int = field(
        default=4,
        metadata={"help": "Largest number of inner iterations of an update (full passes over the rollouts)."},
    )
    gradient_accumulation_steps: int | None = field(  # type: ignore[assignment]  # never `None` once it is made
        default=None,
        metadata={
            "help": "Micro-batches of an optimizer step. Defaults to `steps_per_generation`: one step per pass."
        },
    )
    disable_dropout: bool = field(
        default=True, metadata={"help": "Whether to disable dropout, without which the KL of equal policies is not 0."}
    )

    # Parameters that control the stages
    num_stages: int | None = field(
        default=None,
        metadata={"help": "Number of stages (one update of each trainable agent). Exclusive with `max_steps`."},
    )
    update_order: str = field(
        default="sequential",
        metadata={"help": "Order of the updates in a stage.", "choices": list(UPDATE_ORDERS)},
    )

    # Parameters that control the rollouts
    num_agents: int | None = field(
        default=None, metadata={"help": "Number of agents of a homogeneous team, when `model` is a single model."}
    )
    resampling: str | None = field(
        default=None,
        metadata={
            "help": "What is generated again before each update. Defaults to 'speculative' where that is possible.",
            "choices": list(RESAMPLINGS),
        },
    )
    resample_every: int = field(
        default=1, metadata={"help": "With `resampling='full'`: updates of a stage from one resampling to the next."}
    )
    importance_clip: float | None = field(
        default=10.0, metadata={"help": "With `resampling='importance'`: largest weight. `None` for no clipping."}
    )
    num_rounds: int = field(default=1, metadata={"help": "Number of rounds of a rollout."})
    max_turns: int | None = field(
        default=None,
        metadata={"help": "Number of turns after which a rollout ends. Defaults to `num_rounds` times the agents."},
    )
    router: str = field(default="round_robin", metadata={"help": "Who speaks next.", "choices": list(ROUTERS)})
    stop_string: str | None = field(
        default=None, metadata={"help": "End a rollout after the first message that contains this string."}
    )
    max_context_length: int | None = field(
        default=None,
        metadata={"help": "Longest view of an agent in tokens, the next message included. Defaults to the model's."},
    )
    template_date: str | None = field(
        default=None,
        metadata={
            "help": "Date that chat templates print, as YYYY-MM-DD. Defaults to the day on which the run begins."
        },
    )
    allow_silent_agents: bool = field(
        default=False,
        metadata={"help": "Whether to accept a trainable agent that the router does not call in a dry run."},
    )
    share_base_model: bool = field(
        default=True,
        metadata={"help": "Whether LoRA agents that name the same base model share its weights in memory."},
    )

    generation_cache_gib: float | None = field(
        default=None,
        metadata={
            "help": "GiB for the keys and values of rows that are generated together. Defaults to what is free."
        },
    )
    vllm_sync_dir: str | None = field(
        default=None, metadata={"help": "Where weights are written for vLLM. Defaults to `output_dir`/.vllm."}
    )
    vllm_max_logp_difference: float | None = field(
        default=1.0,
        metadata={"help": "Largest difference of a token's log-probability by vLLM and here, in nats."},
    )
    reward_timeout: float | None = field(
        default=None,
        metadata={"help": "Seconds that a call of a reward function may take. `None` waits forever."},
    )
    tool_timeout: float | None = field(
        default=None, metadata={"help": "Seconds that a call of a tool may take. `None` waits forever."}
    )
    max_tool_result_length: int = field(default=512, metadata={"help": "Maximum number of tokens of a tool's result."})

    offload_idle_agents: bool = field(
        default=False,
        metadata={"help": "Whether to keep the weights of agents that neither generate nor train in CPU memory."},
    )

    # Parameters that control the trust region
    trust_region_radius: float | None = field(
        default=0.01,
        metadata={"help": "Largest KL(current || new) of an accepted update, nats per message. `None` for no radius."},
    )
    radius_schedule: str = field(
        default="uniform",
        metadata={"help": "One radius for all turns, or one for each.", "choices": list(RADIUS_SCHEDULES)},
    )
    kl_estimator: str | None = field(
        default=None,
        metadata={
            "help": "Estimator of the KL that decides on acceptance. Defaults to 'k3' where that is unbiased.",
            "choices": list(KL_ESTIMATORS),
        },
    )
    scoring_precision: str = field(
        default="float32",
        metadata={
            "help": "Precision of the forward passes that the trust region decides by.",
            "choices": list(PRECISIONS),
        },
    )
    speaking_precision: str | None = field(
        default=None,
        metadata={
            "help": "Precision in which agents sample their messages. Defaults to the mixed precision of the run.",
            "choices": list(PRECISIONS),
        },
    )
    floor_every: int = field(
        default=50, metadata={"help": "Stages from one measurement of the KL's floor to the next."}
    )
    kl_coef: float = field(default=0.1, metadata={"help": "Initial coefficient of the KL penalty."})
    kl_controller: str = field(
        default="adaptive",
        metadata={"help": "Whether the KL coefficient adapts to the radius.", "choices": list(KL_CONTROLLERS)},
    )
    enforce_radius: bool = field(
        default=True,
        metadata={"help": "Whether an update is stopped and backtracked if it leaves the radius."},
    )
    monitor_fraction: float = field(
        default=0.0, metadata={"help": "Share of each micro-batch that is only used to measure the KL."}
    )
    max_backtracks: int = field(
        default=10, metadata={"help": "Halvings of an update that is outside the radius, before it is rejected."}
    )
    max_idle_updates: int | None = field(
        default=5, metadata={"help": "Updates in a row of one agent that change nothing before the run ends."}
    )

    def __post_init__(self):
        if uses_deepspeed(self):
            refuse_abandoned_build("deepspeed_shm_comm")  # of a CPU; `super().__post_init__` already needs it
        if self.load_best_model_at_end and self.metric_for_best_model is None:
            # `Trainer` would choose the loss, which is near 0 for every policy
            self.metric_for_best_model = "eval_reward"
            warnings.warn(
                "`load_best_model_at_end` without `metric_for_best_model`: the best team is that of the largest "
                "`eval_reward`.",
                stacklevel=3,
            )
        given = self.gradient_accumulation_steps
        self.gradient_accumulation_steps = 1 if given is None else given  # TRL's own, for what it derives from it
        super().__post_init__()
        if given is None:
            self.gradient_accumulation_steps = self.steps_per_generation or 1
        if offloads_optimizer(self):
            refuse_abandoned_build("cpu_adam")
        if self.template_date is not None:
            self.template_date = str(self.template_date)  # YAML reads it as a date
        check_precision(self)
        check_team_options(self)
        refuse_unsupported(self)
        check_vllm_options(self)

    def to_dict(self) -> dict[str, Any]:
        """The fields, for logs and files. Secrets are masked, at any depth."""
        return mask_secrets(super().to_dict())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.to_dict().items())})"

    __str__ = __repr__
