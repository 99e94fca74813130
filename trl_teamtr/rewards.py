"""Reward functions that answer wrongly are stopped at once, by name and row."""

import math
from collections.abc import Callable, Iterable
from typing import Any, SupportsFloat

from torch import nn
from trl.trainer.utils import get_callable_name, is_async_callable


def check_rewards(rewards: list, name: str, completions: list) -> list:
    """
    Return `rewards` if they are one finite number or `None` for each of `completions`.

    Raises:
        `ValueError`: If their number is wrong, or one of them is NaN or infinite.
        `TypeError`: If one of them is no number.
    """
    if not isinstance(rewards, Iterable) or isinstance(rewards, str):
        raise TypeError(f"The reward function {name!r} returned {rewards!r}; it must return a list of numbers.")
    rewards = list(rewards)
    if len(rewards) != len(completions):
        raise ValueError(
            f"The reward function {name!r} returned {len(rewards)} rewards for {len(completions)} rollouts. It must "
            "return one for each, `None` where it does not apply."
        )
    for row, reward in enumerate(rewards):
        if reward is None:
            continue
        if not isinstance(reward, SupportsFloat):
            raise TypeError(
                f"The reward function {name!r} returned {reward!r} for row {row}; a reward is a number or `None`."
            )
        value = float(reward)
        if not math.isfinite(value):
            raise ValueError(
                f"The reward function {name!r} returned {value} for row {row} (answer: {completions[row]!r}). A "
                "reward must be finite; return `None` to leave the row out."
            )
    return rewards


def checked(reward_func: Callable) -> Callable:
    """Wrap a sync or async reward function so that its answers go through [`check_rewards`]."""
    name = get_callable_name(reward_func)
    if is_async_callable(reward_func):

        async def call(*args, **kwargs):
            return check_rewards(await reward_func(*args, **kwargs), name, kwargs["completions"])

    else:

        def call(*args, **kwargs):
            return check_rewards(reward_func(*args, **kwargs), name, kwargs["completions"])

    call.__name__ = name  # TRL names the reward's metrics after it
    return call


def check_reward_funcs(reward_funcs: Any) -> list:
    """The rewards as a list, in which functions are [`checked`]; models and their paths are left as they are."""
    if not isinstance(reward_funcs, list):
        reward_funcs = [] if reward_funcs is None else [reward_funcs]
    return [func if isinstance(func, str | nn.Module) else checked(func) for func in reward_funcs]
