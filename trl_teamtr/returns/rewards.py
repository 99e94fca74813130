"""Checks of reward functions: one that returns invalid rewards, raises or hangs is reported by name."""

import asyncio
import copy
import math
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, wait
from typing import Any, SupportsFloat

import torch
from torch import nn
from trl.trainer.utils import get_callable_name, is_async_callable

from ..agents.agent import Agent
from ..teamtr_config import TeamTRConfig


def check_rewards(rewards: list, name: str, completions: list) -> list:
    """
    Return `rewards` if they are one finite number or `None` for each of `completions`.

    Raises:
        `ValueError`: If their number is wrong, or one of them is NaN or infinite.
        `TypeError`: If one of them is not a number.
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


def checked(reward_func: Callable, timeout: float | None = None) -> Callable:
    """
    Wrap a sync or async reward function so that its rewards go through [`check_rewards`], and its errors name it. It gets
    copies of the lists, so that what it changes in them is seen by no other function and no later update.

    Args:
        reward_func (`Callable`): The function.
        timeout (`float`, *optional*): Seconds that a call may take. With it, a sync function runs in another thread.

    Raises:
        `RuntimeError`: From the call, if the function raises; its own error is the cause.
        `TimeoutError`: From the call, if it takes longer than `timeout`.
    """
    name = get_callable_name(reward_func)
    call: Callable
    if is_async_callable(reward_func):

        async def call_async(*args, **kwargs):
            # The task is not cancelled and awaited, as `asyncio.wait_for` does: it may refuse to end
            task = asyncio.ensure_future(reward_func(*args, **_copied(kwargs)))
            done, _ = await asyncio.wait([task], timeout=timeout)
            if timeout is not None and not done:
                task.cancel()
                raise _timed_out(name, timeout)
            return check_rewards(_result(task.result, name), name, kwargs["completions"])

        call = call_async
    else:

        def call_sync(*args, **kwargs):
            def ask():
                return reward_func(*args, **_copied(kwargs))

            answer = ask if timeout is None else _in_thread(ask, name, timeout)
            return check_rewards(_result(answer, name), name, kwargs["completions"])

        call = call_sync
    call.__name__ = name  # TRL names the reward's metrics after it
    return call


# They may hold what cannot be copied, such as a connection
_NOT_COPIED = ("environments", "worlds")
_IMMUTABLE = (str, int, float, bool, type(None))


def _copied(kwargs: dict[str, Any]) -> dict[str, Any]:
    """`kwargs` with deep copies of its lists: prompts, completions, transcripts, and columns of the dataset."""
    return {
        key: _copy(value) if isinstance(value, list) and key not in _NOT_COPIED else value
        for key, value in kwargs.items()
    }


def _copy(value: Any) -> Any:
    """A deep copy; of what is read from JSON much faster than `copy.deepcopy`, which it takes for everything else."""
    kind = type(value)
    if kind in _IMMUTABLE:
        return value
    if kind is list:
        return [_copy(each) for each in value]
    if kind is dict:
        return {_copy(key): _copy(each) for key, each in value.items()}
    return copy.deepcopy(value)


def _result(answer: Callable[[], Any], name: str) -> Any:
    try:
        return answer()
    except Exception as error:
        raise RuntimeError(
            f"The reward function {name!r} raised {type(error).__name__}: {error}. Fix it and resume the run from its "
            "last checkpoint."
        ) from error


def _in_thread(ask: Callable[[], Any], name: str, timeout: float) -> Callable[[], Any]:
    """Run `ask` in a daemon thread, which, unlike an executor's, does not keep the process from ending."""
    result: Future = Future()

    def run():
        try:
            result.set_result(ask())
        except BaseException as error:  # re-raised in the calling thread
            result.set_exception(error)

    threading.Thread(target=run, name=f"reward {name}", daemon=True).start()
    if not wait([result], timeout).done:
        raise _timed_out(name, timeout)
    return result.result


def _timed_out(name: str, timeout: float) -> TimeoutError:
    return TimeoutError(
        f"The reward function {name!r} has not answered within `reward_timeout` ({timeout} seconds). Fix it or raise "
        "the timeout, and resume the run from its last checkpoint."
    )


def check_model_rewards(rewards: torch.Tensor, reward_funcs: Sequence, names: Sequence[str]):
    """
    Raise unless the rewards of all reward models are finite.

    Args:
        rewards (`torch.Tensor` of shape `(rows, functions)`): The rewards.
        reward_funcs, names: The reward functions and models, and their names.

    Raises:
        `ValueError`: Names the model and the row.
    """
    for i, (func, name) in enumerate(zip(reward_funcs, names, strict=True)):
        if isinstance(func, nn.Module) and not rewards[:, i].isfinite().all():
            row = int((~rewards[:, i].isfinite()).nonzero()[0])
            raise ValueError(f"The reward model {name!r} returned {rewards[row, i].item()} for row {row}.")


def check_reward_funcs(reward_funcs: Any, timeout: float | None = None) -> list:
    """The rewards as a list, in which functions are [`checked`]; models and their paths are unchanged."""
    if not isinstance(reward_funcs, list | tuple):
        reward_funcs = [] if reward_funcs is None else [reward_funcs]
    return [func if isinstance(func, str | nn.Module) else checked(func, timeout) for func in reward_funcs]


def check_trust(reward_funcs: list, processing_classes: Any, lead: Agent, args: TeamTRConfig):
    """
    Raise if TRL would load a reward model, or its tokenizer, with the `trust_remote_code` of the lead agent.

    Raises:
        `ValueError`: Names the reward model.
    """
    if args.trust_remote_code or not lead.trust_remote_code:
        return
    classes = processing_classes if isinstance(processing_classes, list) else [processing_classes] * len(reward_funcs)
    for func, processing_class in zip(reward_funcs, classes, strict=True):
        if isinstance(func, str) or (isinstance(func, nn.Module) and processing_class is None):
            name = func if isinstance(func, str) else type(func).__name__
            raise ValueError(
                f"The reward model {name!r} would be loaded with the `trust_remote_code=True` of agent {lead.name!r}. "
                "Load it and its tokenizer yourself, and pass them in `reward_funcs` and `reward_processing_classes`; "
                "or set `args.trust_remote_code` to trust all models of the run."
            )
