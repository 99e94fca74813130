"""Rows that are monitored have no part in the gradient, and all of them in the decision."""

import math

import pytest
import torch
from tiny import make_config, make_team, make_trainer

from trl_teamtr.policy.scoring import loss_mask
from trl_teamtr.trust_region.monitor import split_off_monitor


def test_split_counts_what_is_left(tmp_path):
    trainer = make_trainer(tmp_path, make_team(1), per_device_train_batch_size=8)
    rows = [{"prompt": p} for p in ("a", "au") for _ in range(4)]
    batch = trainer._generate_and_score_completions(rows)
    trained, monitored = split_off_monitor([batch], 0.25, trainer.accelerator)
    assert len(trained[0]["advantages"]) == 6 and len(monitored[0]["advantages"]) == 2
    assert trained[0]["num_items_in_batch"] == loss_mask(batch)[:6].sum()
    assert trained[0]["num_messages_in_batch"] == batch["num_messages"][:6].sum()
    for name in ("completion_ids", "num_messages"):
        assert torch.equal(torch.cat([trained[0][name], monitored[0][name]]), batch[name])
    assert split_off_monitor([batch], 0.0, trainer.accelerator) == ([batch], [])


def test_monitored_rows_do_not_move_the_weights(tmp_path, monkeypatch):
    """Whatever their advantages are, the update is the same."""
    monkeypatch.setattr("trl_teamtr.agent_trainer.shuffle_sequence_dict", lambda batch: batch)
    found = []
    for factor in (1.0, -5.0):
        trainer = make_trainer(
            tmp_path, make_team(1), monitor_fraction=0.25, trust_region_radius=0.5, learning_rate=2e-2
        )
        update = trainer.update

        def changed(batch, before, due, update=update, factor=factor):
            batch["advantages"] = batch["advantages"].clone()
            batch["advantages"][6:] *= factor
            return update(batch, before, due)

        monkeypatch.setattr(trainer, "update", changed)
        trainer.train()
        found.append(torch.cat([param.detach().flatten() for param in trainer.model.parameters()]))
    assert torch.equal(*found)


@pytest.mark.parametrize("estimator", ["k3", "exact"])
def test_the_larger_kl_decides(tmp_path, monkeypatch, estimator):
    trainer = make_trainer(
        tmp_path,
        make_team(2),
        monitor_fraction=0.5,
        trust_region_radius=0.02,
        learning_rate=3e-2,
        num_stages=3,
        kl_estimator=estimator,
    )
    measured = []
    for member in trainer.members:
        original = member.measure_kl

        def watched(batches, snapshot, estimator=None, original=original):
            measured.append(original(batches, snapshot, estimator))
            return measured[-1]

        monkeypatch.setattr(member, "measure_kl", watched)
    trainer.train()
    pairs = list(zip(measured[::2], measured[1::2], strict=True))
    logs = [log for log in trainer.state.log_history if "out_of_region_rate" in log]
    accepted = [
        value for log in logs for name, value in log.items() if name.startswith("agent/") and name.endswith("/kl")
    ]
    larger = [max(pair) for pair in pairs]
    assert all(value <= 0.02 for value in accepted) and len(accepted) == 6
    assert all(any(value == pytest.approx(one) for one in larger) for value in accepted if value > 0)
    assert any(first < second for first, second in pairs) and any(first > second for first, second in pairs)


@pytest.mark.parametrize("first", [True, False])
def test_a_kl_that_is_no_number_on_either_part_is_not_accepted(tmp_path, monkeypatch, first):
    trainer = make_trainer(tmp_path, make_team(1), monitor_fraction=0.5, trust_region_radius=0.5)
    calls = []

    def measure(batches, snapshot, estimator=None):
        calls.append(batches)
        return math.nan if (len(calls) % 2 == 1) == first else 0.0

    monkeypatch.setattr(trainer, "measure_kl", measure)
    before = [p.detach().clone() for p in trainer.model.parameters()]
    trainer.train()
    assert all(torch.equal(p, q) for p, q in zip(trainer.model.parameters(), before, strict=True))
    assert trainer.active.report.rejected


def test_bad_fractions():
    with pytest.raises(ValueError, match="share of the rollouts, from 0 up to but not 1"):
        make_config("x", monitor_fraction=1.0)
    with pytest.raises(ValueError, match="of the 8 rollouts of a micro-batch .* is 0"):
        make_config("x", monitor_fraction=0.01)


def test_agents_with_radii_of_their_own_are_monitored_and_others_train_on_all(tmp_path):
    team = make_team(2)
    with pytest.raises(ValueError, match="`monitor_fraction=0.5` is for the radius, but no agent"):
        make_trainer(tmp_path, team, monitor_fraction=0.5, trust_region_radius=None)
    team[1].trust_region_radius = 0.1
    trainer = make_trainer(tmp_path, team, monitor_fraction=0.5, trust_region_radius=None)
    assert [member.args.monitor_fraction for member in trainer.members] == [0.0, 0.5]
    trainer.train()
    kls = [log["agent/y/kl"] for log in trainer.state.log_history if "agent/y/kl" in log]
    assert kls and all(kl <= 0.1 for kl in kls)
