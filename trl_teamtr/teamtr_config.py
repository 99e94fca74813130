"""The configuration of a team run: every field of TRL's `GRPOConfig`, and what a team adds to it."""

from dataclasses import dataclass, field
from typing import Any

from trl import GRPOConfig

from .options.checking import check
from .options.masking import mask_secrets
from .options.unsupported import refuse_unsupported


# What each option may be; `check` turns a miss into a message that lists them.
UPDATE_ORDERS = ("sequential", "reversed", "random")
RESAMPLINGS = ("full", "suffix", "speculative", "stale", "joint", "importance")
ROUTERS = ("round_robin", "random")
KL_CONTROLLERS = ("adaptive", "fixed")
KL_ESTIMATORS = ("k3", "exact")
RADIUS_SCHEDULES = ("uniform", "horizon")


def check_radius(radius: float | None, owner: str):
    """Raise unless `radius` is a trust-region radius: `None`, or a positive number of nats per message."""
    check(
        radius is None or radius > 0,
        f"`trust_region_radius` of {owner} is {radius}, but a radius is a positive KL in nats per message (the paper "
        "uses 0.01). Pass a positive number, or `None` for no trust region.",
    )


@dataclass
class TeamTRConfig(GRPOConfig):
    r"""
    Configuration class for the [`TeamTRTrainer`].

    It inherits every parameter of [`~trl.GRPOConfig`] and adds those of the team, the rollout and the trust region.
    Five inherited parameters have a team meaning:

    - `max_steps`, `logging_steps`, `save_steps`, `eval_steps` count agent *updates*; a stage has one update for each
      trainable agent.
    - `max_completion_length` is per message.
    - `warmup_steps` and the schedule of the learning rate count the updates of one agent, as many as there are stages.
    - `num_iterations` is the largest number of inner iterations of an update. One is a pass over the generation batch
      in `steps_per_generation` micro-batches, accumulated into one optimizer step. It defaults to 4, since the KL
      penalty has no gradient in the first one.
    - `gradient_accumulation_steps` equals `steps_per_generation`.

    Parameters:
        > Parameters that control the stages

        num_stages (`int`, *optional*):
            Number of stages. Exclusive with `max_steps`. If neither is given, `num_train_epochs` decides.
        update_order (`str`, *optional*, defaults to `"sequential"`):
            Order σ in which a stage updates the agents: `"sequential"` (team order), `"reversed"` or `"random"` (drawn
            anew at each stage).

        > Parameters that control the rollouts

        num_agents (`int`, *optional*):
            Number of agents of a homogeneous team, when `model` is a single model.
        num_rounds (`int`, *optional*, defaults to `1`):
            Number of rounds. A rollout has at most `num_rounds * number of agents` turns.
        resampling (`str`, *optional*):
            What is written before each update but a stage's first, for which everything is. Defaults to `"speculative"`,
            and to `"full"` where that is not possible (dropout, or a transform of the sampling other than temperature,
            top-k, top-p and min-p) or there is nothing to reuse (one trained agent). `"full"`: everything.
            `"suffix"`: what follows the first turn of the agent that was just updated. `"speculative"`: only what the
            updated team would have said otherwise, found by block verification. All three have the law of the updated
            team (intermediate occupancy). The others are not TeamTR, and are there for comparison. `"stale"`: nothing;
            the stage's first rollouts serve all its updates. `"joint"`: the same, since all agents updated at once, on
            the same rollouts, make the same updates as one after another, as long as each has parameters of its own.
            `"importance"`: nothing, but each rollout weighs as much as the team updated so far would say it more often.
        resample_every (`int`, *optional*, defaults to `1`):
            With `resampling="full"`: write rollouts anew only before every so many updates of a stage. Above 1 it is a
            baseline, between `"full"` and `"stale"`.
        importance_clip (`float`, *optional*, defaults to `10.0`):
            With `resampling="importance"`: the largest weight of a rollout. `None` for no clipping.
        max_turns (`int`, *optional*):
            Number of turns after which a rollout ends, if it should differ from `num_rounds * number of agents`.
        router (`str`, *optional*, defaults to `"round_robin"`):
            Who speaks next: `"round_robin"` (team order) or `"random"` (uniform). One's own router is an argument of
            the trainer.
        stop_string (`str`, *optional*):
            End a rollout after the first message that contains this string.
        max_context_length (`int`, *optional*):
            Longest view of an agent, in tokens, the message to come included. Defaults to the model's own limit. Where
            it would be exceeded, the oldest messages of other agents that the agent has not read yet are left out; if
            that is not enough, the rollout ends. Both are counted in the metrics.
        allow_silent_agents (`bool`, *optional*, defaults to `False`):
            Whether to accept a trainable agent that the router never calls in a dry run on empty messages. Set it for
            a router that calls an agent only on some texts.
        share_base_model (`bool`, *optional*, defaults to `True`):
            Whether LoRA agents that name the same base model share its weights in memory.
        offload_idle_agents (`bool`, *optional*, defaults to `False`):
            Whether to keep the weights of agents that neither speak nor train in the memory of the CPU. Not with
            DeepSpeed.
        reward_timeout (`float`, *optional*):
            Seconds that one call of a reward function may take before the run stops with a `TimeoutError`. With it,
            functions that are not async are called in a thread of their own. `None` waits forever.

        > Parameters that control the trust region

        trust_region_radius (`float`, *optional*, defaults to `0.01`):
            Radius δ: the largest KL(π_cur ‖ π_new) of an accepted update, in nats per message. `None` for no trust
            region.
        radius_schedule (`str`, *optional*, defaults to `"uniform"`):
            `"uniform"`: δ bounds the mean KL of an agent's messages. `"horizon"`: each of its own turns has a radius of
            its own, wider where fewer of them follow, with the total penalty in the improvement bound that a radius of
            δ at each turn has (docs/theory.md); the logged `kl` is then δ times the largest ratio of a turn's KL to its radius.
        kl_estimator (`str`, *optional*, defaults to `"k3"`):
            How the KL that decides on acceptance is measured: `"k3"` (on the sampled tokens) or `"exact"` (over the
            full vocabulary, with two forward passes per measurement). The penalty and the early stop always use k3.
        kl_coef (`float`, *optional*, defaults to `0.1`):
            Initial coefficient β of the KL penalty. 0 for no penalty.
        kl_controller (`str`, *optional*, defaults to `"adaptive"`):
            `"adaptive"` multiplies β by `1 + clip(KL / radius - 1, -0.2, 0.2)` after each update, with the KL before
            backtracking. `"fixed"` keeps it.
        enforce_radius (`bool`, *optional*, defaults to `True`):
            Whether an update stops early and is taken back where it leaves the radius. `False` is a baseline: the KL is
            measured, and moves an adaptive `kl_coef`, but nothing holds the update.
        monitor_fraction (`float`, *optional*, defaults to `0.0`):
            Share of each micro-batch that is kept out of the gradient. The KL is measured on it and on the rest, and
            the larger one decides: the KL on the rollouts that an update is fitted to is slightly optimistic. Agents
            without a radius train on all.
        max_backtracks (`int`, *optional*, defaults to `10`):
            Number of times an update that is out of region is halved before it is rejected.

        > Parameters that control the advantages

        advantage_clip (`float`, *optional*, defaults to `3.0`):
            A_clip: advantages are clipped to `[-advantage_clip, advantage_clip]`. `None` for no clipping.
        advantage_epsilon (`float`, *optional*, defaults to `1e-6`):
            ε_norm, added to the variance of the group's returns.

        > Parameters that control the diagnostics

        log_occupancy (`bool`, *optional*, defaults to `False`):
            Whether to measure how far the contexts of the agents move in a stage, and what stale rollouts would have
            been off by: `occupancy/...` in the logs.
        log_certificate (`bool`, *optional*, defaults to `False`):
            Whether to measure what each update promises (the surrogate, the penalty of the improvement bound, the
            lower bound) and what it keeps on held-out prompts: `certificate/...` in the logs. Needs `eval_dataset`.
        certificate_prompts (`int`, *optional*, defaults to `128`):
            Rows of `eval_dataset`, of which the team writes one rollout each after each update of a measured stage.
        certificate_gamma (`float`, *optional*):
            Discount per turn: also log the paper's discounted form of the bound.
        advantage_bound (`float`, *optional*, defaults to `1.0`):
            A_max: width of an interval that holds all returns, and with `certificate_gamma` 0 too. 1 for rewards
            between 0 and 1.
        diagnostics_every (`int`, *optional*, defaults to `10`):
            Stages from one that is measured to the next; the first one is. A measured stage costs more than one
            more rollout of the team for each update.

    > [!NOTE]
    > These parameters have default values different from [`~trl.GRPOConfig`]: `num_iterations` (4 instead of 1) and
    > `disable_dropout` (`True` instead of `False`: with dropout, the KL of two equal policies is not 0).
    """

    num_iterations: int = field(
        default=4,
        metadata={"help": "Largest number of inner iterations of an update (full passes over the rollouts)."},
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
            "help": "What is written anew before each update. Defaults to 'speculative' where that is possible.",
            "choices": list(RESAMPLINGS),
        },
    )
    resample_every: int = field(
        default=1, metadata={"help": "With `resampling='full'`: updates of a stage from one rollout to the next."}
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
    allow_silent_agents: bool = field(
        default=False,
        metadata={"help": "Whether to accept a trainable agent that the router does not call in a dry run."},
    )
    share_base_model: bool = field(
        default=True,
        metadata={"help": "Whether LoRA agents that name the same base model share its weights in memory."},
    )

    reward_timeout: float | None = field(
        default=None,
        metadata={"help": "Seconds that a call of a reward function may take. `None` waits forever."},
    )

    offload_idle_agents: bool = field(
        default=False,
        metadata={"help": "Whether to keep the weights of agents that neither speak nor train on the CPU."},
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
    kl_estimator: str = field(
        default="k3",
        metadata={"help": "Estimator of the KL that decides on acceptance.", "choices": list(KL_ESTIMATORS)},
    )
    kl_coef: float = field(default=0.1, metadata={"help": "Initial coefficient of the KL penalty."})
    kl_controller: str = field(
        default="adaptive",
        metadata={"help": "Whether the KL coefficient adapts to the radius.", "choices": list(KL_CONTROLLERS)},
    )
    enforce_radius: bool = field(
        default=True,
        metadata={"help": "Whether an update is stopped and taken back where it leaves the radius."},
    )
    monitor_fraction: float = field(
        default=0.0, metadata={"help": "Share of each micro-batch on which the KL is measured only."}
    )
    max_backtracks: int = field(
        default=10, metadata={"help": "Halvings of an update that is out of region, before it is rejected."}
    )

    # Parameters that control the advantages
    advantage_clip: float | None = field(
        default=3.0, metadata={"help": "Advantages are clipped to plus or minus this. `None` for no clipping."}
    )
    advantage_epsilon: float = field(
        default=1e-6, metadata={"help": "Added to the variance of the returns of a group."}
    )

    # Parameters that control the diagnostics
    log_occupancy: bool = field(default=False, metadata={"help": "Whether to measure how far contexts move."})
    log_certificate: bool = field(
        default=False, metadata={"help": "Whether to measure what each update promises, and what it keeps."}
    )
    certificate_prompts: int = field(default=128, metadata={"help": "Held-out rows on which updates are measured."})
    certificate_gamma: float | None = field(
        default=None, metadata={"help": "Discount per turn of the paper's form of the bound, if it is wanted too."}
    )
    advantage_bound: float = field(default=1.0, metadata={"help": "Width of an interval that holds all returns."})
    diagnostics_every: int = field(
        default=10, metadata={"help": "Stages from one whose diagnostics are measured to the next."}
    )

    def __post_init__(self):
        super().__post_init__()
        # TRL would make several optimizer steps per pass here, where a pass is one step
        if self.gradient_accumulation_steps == 1:
            self.gradient_accumulation_steps = self.steps_per_generation
        check(
            self.gradient_accumulation_steps == self.steps_per_generation,
            f"An inner iteration accumulates all micro-batches of the generation batch into one optimizer step, but "
            f"`gradient_accumulation_steps` is {self.gradient_accumulation_steps} and `steps_per_generation` is "
            f"{self.steps_per_generation}. Set only one of the two.",
        )
        self._check_stages()
        self._check_rollouts()
        self._check_trust_region()
        self._check_diagnostics()
        refuse_unsupported(self)
        check(
            not (self.offload_idle_agents and self.deepspeed_plugin is not None),
            "`offload_idle_agents=True` is not supported with DeepSpeed, which keeps the weights in buffers of its own. "
            "Leave it `False` and use accelerate_configs/zero3_offload.yaml.",
        )

    def to_dict(self) -> dict[str, Any]:
        """The fields, for logs and files: without the values of secrets, at any depth."""
        return mask_secrets(super().to_dict())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.to_dict().items())})"

    __str__ = __repr__

    def _check_stages(self):
        check(
            self.num_stages is None or self.max_steps <= 0,
            f"Both `num_stages` ({self.num_stages}) and `max_steps` ({self.max_steps}) are set. `max_steps` counts "
            "updates, of which a stage has one for each trainable agent: set one of the two.",
        )
        check(
            self.num_stages is None or self.num_stages >= 1, f"`num_stages` must be at least 1, got {self.num_stages}."
        )
        check(self.num_iterations >= 1, f"`num_iterations` must be at least 1, got {self.num_iterations}.")
        self._check_choice("update_order", UPDATE_ORDERS)

    def _check_rollouts(self):
        for name in ("num_agents", "max_turns", "max_context_length"):
            value = getattr(self, name)
            check(value is None or value >= 1, f"`{name}` must be at least 1 or `None`, got {value}.")
        check(self.num_rounds >= 1, f"`num_rounds` must be at least 1, got {self.num_rounds}.")
        check(
            self.max_completion_length is not None,
            "`max_completion_length` must be a number: a message has to leave room for the answers to it. TRL's default "
            "is 512.",
        )
        check(
            self.reward_timeout is None or self.reward_timeout > 0,
            f"`reward_timeout` must be a positive number of seconds, or `None` to wait forever, got "
            f"{self.reward_timeout}.",
        )
        self._check_choice("router", ROUTERS)
        if self.resampling is not None:
            self._check_choice("resampling", RESAMPLINGS)
        check(
            self.resample_every == 1 or (self.resample_every > 1 and self.resampling in (None, "full")),
            f"`resample_every` is {self.resample_every} with `resampling={self.resampling!r}`. It must be at least 1, "
            "and above 1 it is the baseline that writes all rollouts anew, but less often: use `resampling='full'`.",
        )
        check(
            self.importance_clip is None or self.importance_clip > 0,
            f"`importance_clip` must be positive or `None`, got {self.importance_clip}.",
        )
        check(
            self.resampling != "speculative" or self.disable_dropout,
            "`resampling='speculative'` compares the laws of a policy before and after its update, which dropout would "
            "blur. Leave `disable_dropout=True`, or use `resampling='suffix'`.",
        )

    def _check_trust_region(self):
        check_radius(self.trust_region_radius, "the config")
        self._check_choice("radius_schedule", RADIUS_SCHEDULES)
        self._check_choice("kl_estimator", KL_ESTIMATORS)
        self._check_choice("kl_controller", KL_CONTROLLERS)
        check(self.kl_coef >= 0, f"`kl_coef` must be at least 0, got {self.kl_coef}.")
        check(
            0 <= self.monitor_fraction < 1,
            f"`monitor_fraction` is a share of the rollouts, from 0 up to but not 1, got {self.monitor_fraction}.",
        )
        rows = self.per_device_train_batch_size
        check(
            self.monitor_fraction == 0 or 0 < round(self.monitor_fraction * rows) < rows,
            f"`monitor_fraction={self.monitor_fraction}` of the {rows} rollouts of a micro-batch "
            f"(`per_device_train_batch_size`) is {round(self.monitor_fraction * rows)}: at least one must be monitored, "
            "and one trained on. Use larger micro-batches, or another share.",
        )
        check(self.max_backtracks >= 0, f"`max_backtracks` must be at least 0, got {self.max_backtracks}.")
        check(
            self.advantage_clip is None or self.advantage_clip > 0,
            f"`advantage_clip` must be positive or `None`, got {self.advantage_clip}.",
        )
        check(self.advantage_epsilon > 0, f"`advantage_epsilon` must be positive, got {self.advantage_epsilon}.")

    def _check_diagnostics(self):
        for name, unit in (("diagnostics_every", "stage"), ("certificate_prompts", "prompt")):
            value = getattr(self, name)
            check(value >= 1, f"`{name}` must be at least 1 {unit}, got {value}.")
        gamma = self.certificate_gamma
        check(
            gamma is None or 0 <= gamma < 1,
            f"`certificate_gamma` is {gamma}, but the discounted bound is infinite at 1: pass a discount from 0 up to but "
            "not 1, or `None` for the finite-horizon bound alone.",
        )
        check(
            self.advantage_bound > 0,
            f"`advantage_bound` must be positive, the largest difference of two returns, got {self.advantage_bound}.",
        )

    def _check_choice(self, name: str, choices: tuple[str, ...]):
        value = getattr(self, name)
        check(value in choices, f"`{name}` is {value!r}; it must be one of {', '.join(map(repr, choices))}.")
