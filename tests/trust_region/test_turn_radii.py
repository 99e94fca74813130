"""Radii for each own turn: what is measured against them, and that no accepted update leaves any of them."""

import pytest
import torch
from tiny import make_config, make_team, make_trainer

from trl_teamtr.policy.scoring import loss_mask
from trl_teamtr.trust_region.policy_kl import exact_token_kl
from trl_teamtr.trust_region.snapshot import Snapshot
from trl_teamtr.trust_region.turn_radii import TurnRadii, count_own_turns


def test_one_radius_measures_the_mean_over_messages():
    radii = TurnRadii(0.01)
    kl, inputs = torch.tensor([[0.1, 0.2], [0.3, 0.0]]), {"num_messages": torch.tensor([2, 1])}
    assert radii.measure(radii.by_turn(kl, inputs), radii.count(inputs)) == pytest.approx(0.6 / 3)


def test_the_turn_that_is_furthest_out_decides():
    radii = TurnRadii(0.01, [0.01, 0.04])
    kl = torch.tensor([[0.01, 0.0, 0.05], [0.02, 0.01, 0.0]])
    inputs = {"num_messages": torch.tensor([2, 1]), "message_numbers": torch.tensor([[0, -1, 1], [0, 0, -1]])}
    inputs["first_message"] = torch.tensor([0, 0])
    assert radii.by_turn(kl, inputs).tolist() == pytest.approx([0.04, 0.05])
    assert radii.count(inputs).tolist() == [2, 1]
    # 0.02 of 0.01 at the first turn, 0.05 of 0.04 at the second
    assert radii.measure(radii.by_turn(kl, inputs), radii.count(inputs)) == pytest.approx(0.02)


def test_only_messages_that_are_scored_count():
    """The second row has its message of the first turn in its context."""
    radii, inputs = TurnRadii(0.01, [0.01, 0.04]), {"message_numbers": torch.tensor([[0, -1, 1], [-1, 1, 1]])}
    inputs |= {"num_messages": torch.tensor([2, 1]), "first_message": torch.tensor([0, 1])}
    assert radii.count(inputs).tolist() == [1, 2]
    kl = torch.tensor([[0.01, 0.0, 0.05], [0.0, 0.01, 0.02]])
    assert radii.measure(radii.by_turn(kl, inputs), radii.count(inputs)) == pytest.approx(0.01)


@pytest.mark.parametrize("estimator", ["k3", "exact"])
def test_accepted_updates_are_within_every_radius(tmp_path, monkeypatch, estimator):
    settings = {"num_rounds": 3, "max_turns": 5, "learning_rate": 2e-2, "num_stages": 2, "trust_region_radius": 0.02}
    trainer = make_trainer(tmp_path, make_team(2), radius_schedule="horizon", kl_estimator=estimator, **settings)
    assert [len(member.turn_radii.radii) for member in trainer.members] == [3, 2]
    assert trainer.members[1].turn_radii.radii == pytest.approx([0.02, 0.08])
    by_turn = []

    def watch(agent, update):
        def call(batch, before, *due):
            snapshot = Snapshot(agent.engine, with_optimizer=False)
            report = update(batch, before, *due)
            kl = exact_token_kl(agent.speaker.policy, batch, snapshot, agent.temperature) * loss_mask(batch)
            means = agent.turn_radii.by_turn(kl, batch) / agent.turn_radii.count(batch)
            by_turn.append([mean / own for mean, own in zip(means.tolist(), agent.turn_radii.radii, strict=True)])
            if estimator == "exact":
                assert report.kl == pytest.approx(max(by_turn[-1]) * 0.02, rel=1e-3, abs=1e-7)
            return report

        return call

    for member in trainer.members:
        monkeypatch.setattr(member, "update", watch(member, member.update))
    trainer.train()
    assert len(by_turn) == 4 and max(map(max, by_turn)) > 0.2
    if estimator == "exact":
        assert max(map(max, by_turn)) <= 1 + 1e-3


def test_own_turns(tmp_path):
    trainer = make_trainer(tmp_path, make_team(3), num_rounds=2, max_turns=5)
    assert [count_own_turns(trainer.team.rules, trainer.team.names, name) for name in "xyz"] == [2, 2, 1]
    trainer = make_trainer(tmp_path, make_team(2), router_kind="random", max_turns=4)
    assert count_own_turns(trainer.team.rules, trainer.team.names, "x") == 4


def test_an_agent_that_speaks_once_has_the_same_radius(tmp_path):
    found = []
    for schedule in ("uniform", "horizon"):
        trainer = make_trainer(tmp_path, make_team(2), radius_schedule=schedule, learning_rate=2e-2, num_stages=2)
        trainer.train()
        found.append(torch.cat([p.detach().flatten() for m in trainer.members for p in m.model.parameters()]))
    torch.testing.assert_close(*found)


def test_an_agent_without_turns_has_nothing_to_measure(tmp_path):
    trainer = make_trainer(tmp_path, make_team(2), radius_schedule="horizon", max_turns=1, allow_silent_agents=True)
    assert [member.turn_radii.radii is None for member in trainer.members] == [False, True]


def test_unknown_schedule():
    with pytest.raises(ValueError, match="`radius_schedule` is 'wide'"):
        make_config("x", radius_schedule="wide")
