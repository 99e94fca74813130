"""Tensors and numbers: estimators, weights and bounds that know no model."""

from .advantages import group_advantages
from .block_verification import SampledLaw, verify
from .certificate import (
    Certificate,
    discounted_penalty,
    finite_horizon_penalty,
    horizon_radii,
    leave_one_out_advantages,
    surrogate_terms,
)
from .evaluation_metrics import avg_at_k, coordination, pass_at_k, regression_rate, stability
from .importance import importance_weights
from .kl import exact_kl, k1_kl, k3_kl
from .occupancy import context_weights, occupancy_metrics, stale_gap, surrogate_gain
from .turn_groups import branch_turns, group_weights


__all__ = [
    "Certificate",
    "SampledLaw",
    "avg_at_k",
    "branch_turns",
    "context_weights",
    "coordination",
    "discounted_penalty",
    "exact_kl",
    "finite_horizon_penalty",
    "group_advantages",
    "group_weights",
    "horizon_radii",
    "importance_weights",
    "k1_kl",
    "k3_kl",
    "leave_one_out_advantages",
    "occupancy_metrics",
    "pass_at_k",
    "regression_rate",
    "stability",
    "stale_gap",
    "surrogate_gain",
    "surrogate_terms",
    "verify",
]
