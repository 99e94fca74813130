"""What the first trained member keeps for all."""

import math

import pytest
from datasets import Dataset
from tiny import PROMPTS, make_team, make_trainer

from trl_teamtr.diagnostics.watched import ActiveUpdate
from trl_teamtr.trust_region.update import UpdateReport


def test_members_share_one_set_of_records_and_one_team(tmp_path):
    trainer = make_trainer(tmp_path, make_team(3))
    trainer.train()
    for peer in trainer.peers:
        assert peer.state is trainer.state and peer._metrics is trainer._metrics and peer._logs is trainer._logs
        assert peer.lead is trainer and peer.lead.residency is trainer.residency
    assert trainer.team.speakers == [member.speaker for member in trainer.members]


def test_a_frozen_first_agent_does_not_lead(tmp_path):
    team = make_team(3)
    team[0].trainable = False
    trainer = make_trainer(tmp_path, team)
    assert trainer.name == "y" and [member.name for member in trainer.trained_members] == ["y", "z"]
    assert [member.name for member in trainer.members] == ["x", "y", "z"] == list(trainer.team.names)


def test_callbacks_see_the_update_in_progress(tmp_path):
    trainer = make_trainer(tmp_path, make_team(2))
    assert trainer.active == ActiveUpdate(trainer, [], UpdateReport())
    trainer.train()
    assert trainer.active.agent is trainer.members[1] and len(trainer.active.rows) == 8
    assert trainer.active.report.inner_steps > 0


def test_returns_of_rollouts_leave_no_trace(tmp_path):
    trainer = make_trainer(tmp_path, make_team(2))
    rows = [{"prompt": "au"}] * 4
    rollouts = trainer.team.collect(rows)
    before = {name: list(values) for name, values in trainer._metrics["train"].items()}
    returns = trainer.compute_returns(rows, rollouts.transcripts)
    assert returns.shape == (4,) and dict(trainer._metrics["train"]) == before
    assert not trainer._pending_metrics and not trainer._pending_extra_logs


def test_evaluation_collects_rollouts_of_its_own(tmp_path, monkeypatch):
    trainer = make_trainer(tmp_path, make_team(2))
    asked, collect = [], trainer.team.collect
    monkeypatch.setattr(trainer.team, "collect", lambda rows: asked.append(len(rows)) or collect(rows))
    assert "eval_reward" in trainer.evaluate()
    assert asked and sum(asked) == 8 * trainer.num_generations_eval


@pytest.mark.parametrize("generations", [1, 4])
def test_evaluation_of_fewer_rows_than_a_batch(tmp_path, generations):
    trainer = make_trainer(tmp_path, make_team(2), num_generations_eval=generations, per_device_eval_batch_size=8)
    for rows in (1, 3, 5):
        metrics = trainer.evaluate(Dataset.from_dict({"prompt": PROMPTS[:rows]}))
        rollouts, batches = rows * generations, math.ceil(rows * generations / 8)
        assert metrics["eval_rollout/messages"] == pytest.approx(2 * rollouts / batches)  # the mean of the batches
        assert math.isfinite(metrics["eval_reward"]) and math.isfinite(metrics["eval_loss"])
