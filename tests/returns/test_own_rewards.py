"""An agent's rewards beside the team's. That they are what its gradient follows: tests/rollouts/test_exactness.py."""

import warnings

import pytest
import torch
from tiny import answer_reward, make_team, make_trainer

from trl_teamtr import Agent


def brevity(transcripts, log_metric, log_extra, trainer_state, **kwargs):
    lengths = [sum(1 + len(message["content"]) for message in messages) for messages in transcripts]
    log_metric("longest", float(max(lengths)))
    log_extra("length", lengths)
    return [-float(length) for length in lengths]


def silent(completions, **kwargs):
    return [None] * len(completions)


def make(folder, funcs=(brevity,), weights=None, **fields):
    team = make_team(2)
    team[1] = Agent("y", team[1].model, processing_class=team[1].processing_class, reward_funcs=list(funcs))
    team[1].reward_weights = weights
    return make_trainer(folder, team, **fields)


def test_they_count_for_their_agent_alone_and_are_logged_under_its_name(tmp_path):
    trainer = make(tmp_path, weights=[0.5])
    trainer.train()
    x, y = (log for log in trainer.state.log_history if "team/reward" in log)
    assert not [key for key in x if key.startswith("agent/x/reward")]
    assert y["agent/y/rewards/brevity/mean"] < 0 < y["agent/y/rewards/brevity/std"]
    assert y["agent/y/reward"] == pytest.approx(y["team/reward"] + 0.5 * y["agent/y/rewards/brevity/mean"], abs=1e-5)
    assert y["longest"] >= -y["agent/y/rewards/brevity/mean"] and "longest" not in x
    assert len(trainer._logs["extra"]["length"]) == 8


def test_an_evaluation_scores_the_team(tmp_path):
    trainer = make(tmp_path)
    trainer.train()
    found = trainer.evaluate()
    assert "eval_team/reward" in found and not [key for key in found if "agent/y/reward" in key]


def test_rows_without_a_reward_of_its_own_have_the_teams(tmp_path):
    trainer = make(tmp_path, [silent])
    rows = [{"prompt": "a"}] * 8
    for member in trainer.members:
        member.model.train()
    rollouts = trainer.team.collect(rows)
    member = trainer.members[1]
    member._generate_and_score_completions(rows, rollouts)
    torch.testing.assert_close(member.returns, trainer.compute_returns(rows, rollouts.transcripts))


def test_one_that_raises_is_named(tmp_path):
    def broken(completions, **kwargs):
        raise KeyError("solution")

    with pytest.raises(RuntimeError, match="The reward function 'broken' raised KeyError"):
        make(tmp_path, [broken]).train()


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"multi_objective_aggregation": "normalize_then_sum"}, "Agent 'y' .* use 'sum_then_normalize'"),
        ({"log_certificate": True, "num_rounds": 1}, "Agent 'y' .* but `log_certificate` measures the team's return"),
        ({"log_occupancy": True}, "Agent 'y' .* but `log_occupancy` measures the team's return"),
    ],
    ids=str,
)
def test_what_knows_only_the_teams_rewards_is_refused(tmp_path, fields, message):
    with pytest.raises(ValueError, match=message):
        make(tmp_path, reward_funcs=[answer_reward], **fields)


def test_agents_check_what_they_are_given():
    with pytest.raises(ValueError, match="'x' has 1 `reward_funcs` of its own, but 2 `reward_weights`"):
        Agent("x", "model", reward_funcs=brevity, reward_weights=[1.0, 2.0])
    with pytest.raises(ValueError, match="'x' has 0 `reward_funcs` of its own, but 1 `reward_weights`"):
        Agent("x", "model", reward_weights=[1.0])
    with pytest.raises(ValueError, match="'x' has `trainable=False` and `reward_funcs`"):
        Agent("x", "model", reward_funcs=[brevity], trainable=False)
    assert Agent("x", "model", reward_funcs=brevity).reward_funcs == [brevity]
    assert Agent("x", "model", reward_funcs=[]).reward_funcs is None


def test_they_are_missed_where_a_saved_team_or_a_run_goes_on_without_them(tmp_path):
    trainer = make(tmp_path / "run", save_strategy="steps", save_steps=2)
    trainer.train()
    saved = r"'y' had \['brevity'\] \(now \[\]\) as `reward_funcs` of its own. They are code, and not saved"
    with pytest.warns(UserWarning, match=saved):
        make_trainer(tmp_path / "new", str(tmp_path / "run" / "checkpoint-2"))
    without = make_trainer(tmp_path / "other", make_team(2), num_stages=2)
    with pytest.warns(UserWarning, match=saved):
        without.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*of its own.*")
        make(tmp_path / "run", num_stages=2).train(resume_from_checkpoint=True)
