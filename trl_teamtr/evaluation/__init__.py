"""Evaluation of teams, compared with other uses of the same or other models, at a known cost in tokens."""

from ..maths.evaluation_metrics import avg_at_k, coordination, pass_at_k, regression_rate, stability
from .evaluate import evaluate_protocols
from .evaluation_config import PROTOCOLS, EvaluationConfig
from .results import ProtocolResult, format_table, write_episodes


__all__ = [
    "PROTOCOLS",
    "EvaluationConfig",
    "ProtocolResult",
    "avg_at_k",
    "coordination",
    "evaluate_protocols",
    "format_table",
    "pass_at_k",
    "regression_rate",
    "stability",
    "write_episodes",
]
