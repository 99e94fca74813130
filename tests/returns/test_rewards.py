import asyncio
import functools
import threading
import time

import numpy as np
import pytest
import torch
from datasets import Dataset
from tiny import answer_reward, make_team, make_trainer

from trl_teamtr.returns.rewards import check_rewards, checked


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


def test_hanging_reward_is_given_up_by_name():
    freed = threading.Event()

    def judge(completions, **kwargs):
        freed.wait()

    call, start = checked(judge, timeout=0.1), time.monotonic()
    with pytest.raises(TimeoutError, match="'judge' has not answered within `reward_timeout` \\(0.1 seconds\\)"):
        call(completions=ANSWERS)
    assert time.monotonic() - start < 30
    freed.set()


def test_hanging_async_reward_is_given_up_although_it_refuses_to_end():
    async def judge(completions, **kwargs):
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(60)

    async def ask():
        with pytest.raises(TimeoutError, match="'judge' has not answered"):
            await checked(judge, timeout=0.1)(completions=ANSWERS)

    start, loop = time.monotonic(), asyncio.new_event_loop()
    loop.run_until_complete(ask())
    loop.run_until_complete(asyncio.sleep(0))  # the cancellation reaches the judge
    assert time.monotonic() - start < 30
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


@pytest.mark.parametrize("timeout", [None, 60.0])
def test_only_a_timeout_moves_the_call_to_another_thread(timeout):
    def judge(completions, **kwargs):
        return [float(threading.current_thread() is threading.main_thread())] * 2

    thread = 1.0 if timeout is None else 0.0
    assert checked(judge, timeout)(completions=ANSWERS) == [thread, thread]


@pytest.mark.parametrize("timeout", [None, 60.0])
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_error_of_a_reward_names_the_function_and_keeps_the_cause(kind, timeout):
    def judge(completions, **kwargs):
        raise KeyError("no such key")

    async def async_judge(completions, **kwargs):
        judge(completions)

    with pytest.raises(RuntimeError, match="judge' raised KeyError: 'no such key'.*resume") as caught:
        if kind == "sync":
            checked(judge, timeout)(completions=ANSWERS)
        else:
            asyncio.run(checked(async_judge, timeout)(completions=ANSWERS))
    assert isinstance(caught.value.__cause__, KeyError)


def test_answers_are_checked_with_a_timeout_too():
    with pytest.raises(ValueError, match="'<lambda>' returned nan for row 1"):
        checked(lambda completions, **kwargs: [0.0, float("nan")], timeout=60.0)(completions=ANSWERS)


def test_run_is_resumed_with_a_mended_reward_and_ends_as_if_nothing_had_happened(tmp_path):
    calls, freed = [], threading.Event()

    def answer_reward_that_hangs(**kwargs):
        calls.append(1)
        if len(calls) == 3:
            freed.wait()
        return answer_reward(**kwargs)

    fields = {"num_stages": 2, "save_strategy": "steps", "save_steps": 1, "reward_timeout": 5.0}
    with pytest.raises(TimeoutError, match="'answer_reward_that_hangs'.*resume the run from its last checkpoint"):
        make_trainer(tmp_path / "a", make_team(2), answer_reward_that_hangs, **fields).train()
    freed.set()
    resumed = make_trainer(tmp_path / "a", make_team(2, seed=9), **fields)
    resumed.train(resume_from_checkpoint=True)
    whole = make_trainer(tmp_path / "b", make_team(2), **fields)
    whole.train()
    for a, b in zip(resumed.members, whole.members, strict=True):
        assert all(torch.equal(p, q) for p, q in zip(a.model.parameters(), b.model.parameters(), strict=True))


@pytest.mark.parametrize("timeout", [None, 30.0])
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_what_a_reward_changes_is_seen_by_no_other_function_and_no_later_update(tmp_path, kind, timeout):
    """A chat prompt, an answer and a column are changed in place; the second function and the next stage read the old."""
    seen = []

    def spoil(prompts, completions, transcripts, column, **kwargs):
        for conversation in (*prompts, *completions, *transcripts):
            conversation[0]["content"] = "spoiled"
        for entry in column:
            entry.append("spoiled")
        prompts.clear()
        return [0.0] * len(completions)

    async def spoil_later(**kwargs):
        return spoil(**kwargs)

    def look(prompts, completions, transcripts, column, **kwargs):
        seen.append(repr((prompts, completions, transcripts, column)))
        return [float(len(answer[0]["content"])) for answer in completions]

    dataset = Dataset.from_list([{"prompt": [{"role": "user", "content": "a"}], "column": ["b"]}] * 4)
    team = make_team(2)
    for agent in team:
        agent.processing_class.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    trainer = make_trainer(
        *(tmp_path, team),
        dataset=dataset,
        num_stages=2,
        reward_timeout=timeout,
        reward_funcs=[spoil if kind == "sync" else spoil_later, look],
    )
    trainer.train()
    assert len(seen) == 4 and not any("spoiled" in text for text in seen)


def test_functions_get_copies_however_deep_and_of_whatever():
    class Tree:
        def __init__(self):
            self.leaves = [1]

    tree, turn = Tree(), {"role": "user", "content": "a"}
    given = {"prompts": [[turn], [turn]], "trees": [tree, (turn, 2.5, None)], "limit": 3, "completions": ANSWERS}

    def spoil(prompts, trees, completions, **kwargs):
        prompts[0][0]["content"] = "b"
        prompts[0].append("c")
        trees[0].leaves.append(2)
        trees[1][0]["role"] = "d"
        return [float(prompts[1] == [{"role": "user", "content": "a"}]), float(kwargs["limit"])]

    assert checked(spoil)(**given) == [1.0, 3.0]
    assert given["prompts"] == [[{"role": "user", "content": "a"}]] * 2 and tree.leaves == [1]
    assert given["trees"] == [tree, (turn, 2.5, None)] and turn["role"] == "user"
