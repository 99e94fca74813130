"""Settings that a resumed run changes take effect, and are listed, or are refused."""

import json
import warnings

import pytest
from tiny import make_team, make_trainer


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    trainer = make_trainer(folder, make_team(2), num_stages=1, save_strategy="steps", save_steps=1, learning_rate=1e-2)
    trainer.train()
    return folder, str(folder / "checkpoint-1")


def resume(saved, team=None, **fields):
    folder, checkpoint = saved
    fields = {"num_stages": 1, "save_strategy": "steps", "save_steps": 1, "learning_rate": 1e-2} | fields
    trainer = make_trainer(folder, team or make_team(2), **fields)
    trainer.train(resume_from_checkpoint=checkpoint)
    return trainer


@pytest.mark.parametrize(
    "field, was, given",
    [("learning_rate", 0.01, 0.02), ("weight_decay", 0.0, 0.1), ("adam_beta2", 0.999, 0.9), ("kl_coef", 0.1, 0.7)],
)
def test_what_the_checkpoint_restores_cannot_be_changed(saved, field, was, given):
    with pytest.raises(ValueError, match=f"saved with other settings: `{field}` {was} → {given}. .* no effect"):
        resume(saved, **{field: given})


def test_an_agents_own_learning_rate_cannot_be_changed_either(saved):
    team = make_team(2)
    team[1].learning_rate = 0.5
    with pytest.raises(ValueError, match="`learning_rate` of agent 'y' None → 0.5"):
        resume(saved, team)


def test_what_takes_effect_is_listed(saved):
    with pytest.warns(UserWarning, match="take effect from here on: .*`trust_region_radius` .* → 0.3[;.]"):
        trainer = resume(saved, trust_region_radius=0.3)
    assert [log["agent/y/radius"] for log in trainer.state.log_history if "agent/y/radius" in log] == [0.3]


def test_nothing_is_listed_where_nothing_differs(saved):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        resume(saved)
    assert not any("differ from those" in str(warning.message) for warning in caught)


def test_the_default_estimator_follows_from_how_the_resumed_run_samples(saved):
    with open(f"{saved[1]}/training_args.json") as file:
        assert json.load(file)["kl_estimator"] is None
    with pytest.warns(UserWarning, match="take effect from here on: `top_p` 1.0 → 0.9\\."):
        trainer = resume(saved, top_p=0.9)
    assert [member.kl_estimator for member in trainer.members] == ["exact", "exact"]
    assert trainer.args.kl_estimator is None
