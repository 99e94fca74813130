"""Updates that change nothing are counted, warned of and, once there are too many in a row, end the run."""

import warnings

import pytest
import torch
from tiny import make_model, make_team, make_tokenizer, make_trainer

from trl_teamtr import Agent
from trl_teamtr.checks.idle import IdleWatch
from trl_teamtr.trust_region.update import UpdateReport


def look(watch, name="x", radius=0.01, learning_rate=1e-4, dtype="float32", **fields):
    watch.look(name, UpdateReport(**{"idle": True, "inner_steps": 1, **fields}), radius, learning_rate, dtype)


CAUSES = [
    (
        {"rejected": True, "backtracks": 10, "kl_proposed": 3.0},
        r"rejected: its KL was 3 nats per message, and after 10 halvings .* above the radius, 0.01. Use a smaller learning",
    ),
    (
        {"backtracks": 4, "kl_proposed": 3.0, "dtype": "bfloat16"},
        r"4 halvings .* have left the bfloat16 weights as they were. Load the model with .*'float32'",
    ),
    ({"dtype": "bfloat16"}, r"learning rate 0.0001 was too small to change the bfloat16 weights. Load the model with"),
    ({"learning_rate": 0.0}, "The learning rate is 0"),
    ({"inner_steps": 0}, "It made no step: `mask_truncated_completions`"),
]


@pytest.mark.parametrize("fields, message", CAUSES)
def test_the_cause_and_the_remedy_are_named(fields, message):
    with pytest.warns(UserWarning, match=f"agent 'x' has changed nothing.*{message}"):
        look(IdleWatch(2), **fields)


def test_only_updates_in_a_row_of_one_agent_end_the_run():
    watch = IdleWatch(3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for idle in (True, True, False, True, True):
            look(watch, idle=idle)
            look(watch, "y", idle=idle)
        with pytest.raises(RuntimeError, match="The last 3 updates of agent 'x' have changed nothing, although"):
            look(watch)
        without_limit = IdleWatch(None)
        for _ in range(20):
            look(without_limit)


def assert_ends(trainer, message):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(RuntimeError, match=message):
            trainer.train()


def low_precision_team():
    return [Agent(name, make_model().to(torch.bfloat16), processing_class=make_tokenizer()) for name in "xy"]


@pytest.mark.parametrize("radius", [0.01, None])
def test_steps_that_low_precision_weights_swallow_end_the_run(tmp_path, radius):
    trainer = make_trainer(
        tmp_path,
        low_precision_team(),
        trust_region_radius=radius,
        learning_rate=1e-9,
        num_stages=9,
        max_idle_updates=2,
    )
    assert_ends(trainer, "learning rate 1e-09 was too small to change the bfloat16 weights")
    assert trainer.state.global_step == 3  # x, y, x
    assert [log["agent/x/idle"] for log in trainer.state.log_history if "agent/x/idle" in log] == [1, 1]


def test_updates_that_are_always_rejected_end_the_run(tmp_path):
    trainer = make_trainer(
        tmp_path, make_team(1), learning_rate=1.0, max_backtracks=0, num_stages=9, max_idle_updates=3
    )
    assert_ends(trainer, "It was rejected: .*after 0 halvings")
    assert trainer.state.global_step == 3


def test_updates_that_learn_or_have_nothing_to_learn_are_not_idle(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.filterwarnings("ignore", module="torch")
        for reward in (None, lambda completions, **kwargs: [1.0] * len(completions)):
            rewards = {} if reward is None else {"reward_funcs": reward}
            trainer = make_trainer(tmp_path, make_team(1), num_stages=2, kl_coef=0.0, max_idle_updates=1, **rewards)
            trainer.train()
            assert [log["agent/x/idle"] for log in trainer.state.log_history if "agent/x/idle" in log] == [0, 0]


def test_messages_that_are_all_masked_are_idle(tmp_path):
    trainer = make_trainer(
        tmp_path,
        make_team(1),
        mask_truncated_completions=True,
        max_completion_length=1,
        generation_kwargs={"suppress_tokens": [1]},
        kl_estimator="exact",
        resampling="full",
        num_stages=9,
        max_idle_updates=2,
    )
    assert_ends(trainer, "`mask_truncated_completions` left out")
