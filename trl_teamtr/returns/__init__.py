"""Rewards, and the returns of rollouts."""

from .returns import answers, weigh_rewards
from .rewards import check_reward_funcs
from .scorer import RewardScorer


__all__ = [
    "RewardScorer",
    "answers",
    "check_reward_funcs",
    "weigh_rewards",
]
