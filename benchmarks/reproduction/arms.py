"""The arms: what each method sets. All share the learning rate, the passes, the radius and the warmed-up teams."""

from typing import Any


# 3-token messages: KLs per message are larger than those of the paper's long ones at the same change of behaviour
RADIUS = 0.2

BASE = {
    "resampling": "full",  # the paper's; the default is "speculative"
    "num_generations": 8,
    "max_completion_length": 4,
    "num_iterations": 4,
    "learning_rate": 1.5e-3,
    "lr_scheduler_type": "constant",
    "adam_beta2": 0.9,
    "trust_region_radius": RADIUS,
    "kl_estimator": "exact",
    "kl_coef": 0.03,
}

# Measured, but neither penalised nor enforced
NO_RADIUS = {"enforce_radius": False, "kl_coef": 0.0}

# A learning rate that nobody has tuned
LARGE_STEPS = {"learning_rate": 3 * BASE["learning_rate"]}

# Advantages that nothing divides: the mean of their gradient does not depend on what has a common baseline
UNDIVIDED = {"scale_rewards": "none", "loss_type": "dr_grpo", "advantage_clip": None}

ARMS: dict[str, dict[str, Any]] = {
    "full": {},
    "speculative": {"resampling": "speculative"},
    "stale": {"resampling": "stale"},
    "stale_no_radius": {"resampling": "stale", **NO_RADIUS},
    "no_radius": NO_RADIUS,
    "importance": {"resampling": "importance"},
    "every_2": {"resample_every": 2},
    "adaptive_kl_only": {"enforce_radius": False},
    "fixed_kl_only": {"enforce_radius": False, "kl_controller": "fixed"},
    "radius_tenth": {"trust_region_radius": RADIUS / 10},
    "radius_tenfold": {"trust_region_radius": RADIUS * 10},
    "no_normalisation": {"scale_rewards": "none"},
    "no_advantage_clip": {"advantage_clip": None},
    "reversed": {"update_order": "reversed"},
    "random_order": {"update_order": "random"},
    "stale_reversed": {"resampling": "stale", "update_order": "reversed"},
    "grpo": {"resampling": "stale", "loss_type": "grpo", **NO_RADIUS},
    "dapo": {"resampling": "stale", "loss_type": "dapo", "epsilon_high": 0.28, **NO_RADIUS},
    "ppo_clip": {"resampling": "stale", "loss_type": "grpo", "scale_rewards": "batch", **NO_RADIUS},
    "speculative_no_radius": {"resampling": "speculative", **NO_RADIUS},
    "single_penalty": {"resampling": "speculative", "enforce_radius": False, "kl_controller": "fixed"},
    **{
        f"speculative_{name}": {"resampling": "speculative", **settings}
        for name, settings in {
            "beta2_0.999": {"adam_beta2": 0.999},
            "one_pass": {"num_iterations": 1},
            "two_passes": {"num_iterations": 2},
            "eight_passes": {"num_iterations": 8},
            "no_penalty": {"kl_coef": 0.0},
            "penalty_tenfold": {"kl_coef": 0.3},
            "radius_third": {"trust_region_radius": RADIUS / 3},
            "radius_threefold": {"trust_region_radius": RADIUS * 3},
            "reversed": {"update_order": "reversed"},
            "random_order": {"update_order": "random"},
        }.items()
    },
    "monitored": {"monitor_fraction": 0.25},
    "large_steps_full": LARGE_STEPS,
    "large_steps_stale": {"resampling": "stale", **LARGE_STEPS},
    "large_steps_no_radius": LARGE_STEPS | NO_RADIUS,
    "large_steps_stale_no_radius": {"resampling": "stale", **LARGE_STEPS, **NO_RADIUS},
    "two_rounds": {"num_rounds": 2},
    "undivided": UNDIVIDED,
    "undivided_suffix": UNDIVIDED | {"resampling": "suffix", "update_order": "reversed"},
    "undivided_speculative": UNDIVIDED | {"resampling": "speculative"},
    "turn": UNDIVIDED | {"advantage_group": "turn"},
    "two_rounds_horizon": {"num_rounds": 2, "radius_schedule": "horizon"},
}
