"""Importance weights make means over stale rollouts those of the updated team, as long as nothing is clipped."""

import json

import pytest
import torch
from tiny import answer_reward, enumerate_rollouts, make_config, make_team, make_trainer

from trl_teamtr.maths.importance import importance_weights
from trl_teamtr.runs.stage_state import load_stage


def test_weighted_stale_mean_is_the_mean_of_the_updated_team(tmp_path):
    trainer = make_trainer(tmp_path, make_team(2), num_rounds=2)
    start = enumerate_rollouts(trainer, "au")
    generator = torch.Generator().manual_seed(0)
    for member in trainer.members:
        with torch.no_grad():
            for param in member.model.parameters():
                param += 0.2 * torch.randn(param.shape, generator=generator)
    now = enumerate_rollouts(trainer, "au")
    ratios = [[b - a for a, b in zip(old.logps, new.logps, strict=True)] for old, new in zip(start, now, strict=True)]
    weights = importance_weights(torch.tensor(ratios, dtype=torch.float64), None)
    returns = torch.tensor(answer_reward(None, [[{"content": m.text} for m in r.messages] for r in start]))
    p, q = (torch.tensor([r.probability for r in team], dtype=torch.float64) for team in (start, now))
    assert (p * weights * returns).sum().item() == pytest.approx((q * returns).sum().item(), abs=1e-6)
    assert (p * weights).sum().item() == pytest.approx(1, abs=1e-6)
    assert abs((p * returns).sum().item() - (q * returns).sum().item()) > 1e-3


def test_clip():
    ratios = torch.tensor([[1.0, 2.0], [-3.0, 0.0]])
    assert importance_weights(ratios, 5.0).tolist() == pytest.approx([5.0, torch.tensor(-3.0).exp().item()])
    with pytest.raises(ValueError, match="`importance_clip` must be positive"):
        make_config("x", importance_clip=0.0)


def test_first_update_of_a_stage_has_weight_one_and_later_ones_scale_the_advantages(tmp_path, monkeypatch):
    trainer = make_trainer(
        tmp_path,
        make_team(3),
        resampling="importance",
        learning_rate=2e-2,
        trust_region_radius=0.3,
        importance_clip=1.2,
    )
    seen = []
    for member in trainer.members:
        original = member._team_advantages

        def watched(advantages, original=original, member=member):
            found = original(advantages)
            seen.append((found.clone(), trainer.resampler.stage.rollouts.weights))
            return found

        monkeypatch.setattr(member, "_team_advantages", watched)
        update = member.update
        monkeypatch.setattr(
            member,
            "update",
            lambda batch, *rest, update=update: seen.append(batch["advantages"]) or update(batch, *rest),
        )
    trainer.train()
    for i in range(0, 6, 2):
        (plain, weights), used = seen[i], seen[i + 1]
        assert (weights == 1).all() == (i == 0)
        assert weights.max() <= 1.2 + 1e-9
        torch.testing.assert_close(used, plain * weights.to(plain))
    logs = [log for log in trainer.state.log_history if "importance/ess" in log]
    assert [log["importance/ess"] < 1 for log in logs] == [False, True, True]
    assert [log["rollout/tokens_decoded"] > 0 for log in logs] == [True, False, False]


def test_truncated_sampling_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'x' samples with top_p=0.9, but `resampling='importance'`"):
        make_trainer(tmp_path, make_team(2), resampling="importance", top_p=0.9, kl_estimator="exact")


def test_weights_are_resumed_however_rollouts_are_spread_over_processes(tmp_path):
    """Each process had written as many columns as its own longest rollout has messages."""
    fields = {"resampling": "importance", "save_strategy": "steps", "save_steps": 1}
    trainer = make_trainer(tmp_path, make_team(2), **fields)
    trainer.train()
    folder, found = tmp_path / "checkpoint-1", []
    state = json.loads((folder / "rollouts.json").read_text())
    for columns in (2, 4):
        state["log_ratios"] = [row[:2] + [0.0] * (columns - 2) * (i % 2) for i, row in enumerate(state["log_ratios"])]
        (folder / "rollouts.json").write_text(json.dumps(state))
        stage = load_stage(str(folder), trainer.team.turn_loop, 1, trainer._restore_snapshot)
        found.append(stage.weights.log_ratios)
    assert torch.equal(*found) and found[0].shape == (8, 2) and found[0].abs().max() > 0
