import asyncio
import functools

import numpy as np
import pytest
import torch

from trl_teamtr.rewards import check_rewards, checked


ANSWERS = ["x", "y"]


@pytest.mark.parametrize("rewards", [[0.5, 1], [None, None], [True, -3.0], [np.float32(1), torch.tensor(2.0)]])
def test_finite_numbers_and_none_pass_unchanged(rewards):
    assert check_rewards(rewards, "func", ANSWERS) == rewards


@pytest.mark.parametrize("rewards", [[], [1.0], [1.0, 1.0, 1.0]])
def test_wrong_number_of_rewards_raises(rewards):
    with pytest.raises(ValueError, match=f"'func' returned {len(rewards)} rewards for 2 rollouts"):
        check_rewards(rewards, "func", ANSWERS)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), torch.tensor(float("nan"))])
def test_reward_that_is_not_finite_raises_with_row_and_answer(value):
    with pytest.raises(ValueError, match=r"'func' returned (nan|-?inf) for row 1 \(answer: 'y'\)"):
        check_rewards([0.0, value], "func", ANSWERS)


@pytest.mark.parametrize("value", ["high", [1.0, 2.0], {}, object()])
def test_reward_that_is_no_number_raises(value):
    with pytest.raises(TypeError, match="'func' returned .* for row 0; a reward is a number"):
        check_rewards([value, 0.0], "func", ANSWERS)


def length_reward(completions, **kwargs):
    return [float(len(completion)) for completion in completions]


def test_checked_keeps_the_name_and_the_answers():
    call = checked(length_reward)
    assert call.__name__ == "length_reward"
    assert call(prompts=["p", "p"], completions=["ab", "c"]) == [2.0, 1.0]


def test_checked_names_a_partial_after_its_function():
    assert checked(functools.partial(length_reward, scale=2)).__name__ == "length_reward"


def test_checked_names_a_callable_object_after_its_class():
    class Judge:
        def __call__(self, completions, **kwargs):
            return [1.0]

    call = checked(Judge())
    assert call.__name__ == "Judge"
    with pytest.raises(ValueError, match="'Judge' returned 1 rewards for 2 rollouts"):
        call(prompts=["p", "p"], completions=ANSWERS)


def test_checked_awaits_an_async_reward():
    async def slow_reward(completions, **kwargs):
        return [float("nan") if completion == "bad" else 1.0 for completion in completions]

    call = checked(slow_reward)
    assert call.__name__ == "slow_reward"
    assert asyncio.run(call(prompts=["p"], completions=["good"])) == [1.0]
    with pytest.raises(ValueError, match=r"'slow_reward' returned nan for row 0 \(answer: 'bad'\)"):
        asyncio.run(call(prompts=["p"], completions=["bad"]))


@pytest.mark.parametrize("answer", [0.5, None, "10"])
def test_answer_that_is_no_list_is_refused_by_name(answer):
    with pytest.raises(TypeError, match="'func' returned"):
        check_rewards(answer, "func", ANSWERS)


def test_number_in_a_string_is_refused():
    with pytest.raises(TypeError, match="'func' returned '1' for row 1"):
        check_rewards([1.0, "1"], "func", ANSWERS)
