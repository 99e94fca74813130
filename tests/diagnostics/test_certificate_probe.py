"""The certificate of a training run, against the exact distribution of its tiny team."""

import pytest
import torch
from tiny import answer_reward, enumerate_rollouts, make_config, make_team, make_trainer

from trl_teamtr.checks.sampling_checks import can_be_verified
from trl_teamtr.diagnostics import certificate_probe
from trl_teamtr.diagnostics.certificate_probe import fill_missing


MOVING = {"learning_rate": 2e-2, "trust_region_radius": 0.1, "num_stages": 2, "logging_steps": 1}
ON = {"log_certificate": True, "diagnostics_every": 1}


def run(folder, agents=2, **fields):
    trainer = make_trainer(folder, make_team(agents), **(MOVING | fields))
    trainer.train()
    return trainer, [log for log in trainer.state.log_history if "rollout/messages" in log]


def expected_return(trainer, prompts):
    total = 0.0
    for prompt in prompts:
        rollouts = enumerate_rollouts(trainer, prompt)
        returns = answer_reward(None, [[{"content": m.text} for m in r.messages] for r in rollouts])
        total += sum(r.probability * value for r, value in zip(rollouts, returns, strict=True))
    return total / len(prompts)


def test_surrogate_and_measured_change_are_the_exact_improvement_of_an_agent_that_speaks_once(tmp_path, monkeypatch):
    """On fresh rollouts its surrogate is exact, so both estimate the same number."""
    settings = {
        "num_stages": 1,
        "per_device_train_batch_size": 1600,
        "num_generations": 200,
        "certificate_prompts": 6400,
    }
    trainer = make_trainer(tmp_path, make_team(2), trust_region_radius=0.3, learning_rate=2e-2, **ON, **settings)
    trainer.callback_handler.callbacks[-1]._probes[0]._rows *= 800  # the same eight prompts as in training
    exact, prompts = [], sorted({row["prompt"] for row in trainer.train_dataset})
    for member in trainer.members:

        def watched(batch, before, due, update=member.update):
            worth = expected_return(trainer, prompts)
            report = update(batch, before, due)
            exact.append(expected_return(trainer, prompts) - worth)
            return report

        monkeypatch.setattr(member, "update", watched)
    trainer.train()
    logs = [log for log in trainer.state.log_history if "certificate/surrogate" in log]
    assert len(logs) == 2 and max(map(abs, exact)) > 0.01
    for log, truth in zip(logs, exact, strict=True):
        assert log["certificate/penalty"] == 0
        assert abs(log["certificate/surrogate"] - truth) < 4 * log["certificate/standard_error"]
        assert abs(log["certificate/measured"] - truth) < 4 * log["certificate/measured_se"]
        assert log["certificate/standard_error"] < 0.03


def test_what_is_logged(tmp_path):
    _, logs = run(tmp_path, num_rounds=2, certificate_gamma=0.9, **ON)
    for i, log in enumerate(logs):
        found = {name.partition("/")[2]: value for name, value in log.items() if name.startswith("certificate/")}
        zeta = found["zeta_norm"] + found["zeta_ratio"] + found["zeta_clip"]
        assert found["penalty"] > 0
        assert found["lower_bound"] == pytest.approx(found["trained"] - found["penalty"] - zeta)
        assert found["lower_bound"] <= found["surrogate"] - found["penalty"] + 1e-9
        assert found["penalty_discounted"] > found["penalty"] and found["lower_bound_discounted"] < 0
        assert ("stage_surrogate" in found) == (i % 2 == 1)
    for name in ("surrogate", "penalty", "lower_bound", "measured"):
        summed = logs[2][f"certificate/{name}"] + logs[3][f"certificate/{name}"]
        assert logs[3][f"certificate/stage_{name}"] == pytest.approx(summed)


def test_training_is_the_same_with_and_without(tmp_path):
    found = []
    for fields in ({}, ON | {"log_occupancy": True}):
        trainer, logs = run(tmp_path, agents=3, **fields)
        found.append([p.detach() for member in trainer.members for p in member.model.parameters()])
        assert any(name.startswith("certificate/") for name in logs[0]) == bool(fields)
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


def test_held_out_rollouts_that_an_update_has_not_changed_cancel(tmp_path, monkeypatch):
    """The same run with verification and without: the change is measured more exactly, from fewer tokens."""
    found = []
    for verified in (True, False):
        monkeypatch.setattr(certificate_probe, "can_be_verified", lambda *args, verified=verified: verified)
        settings = {"certificate_prompts": 400, "trust_region_radius": 0.02, "num_stages": 1}
        trainer = make_trainer(tmp_path, make_team(2), **(MOVING | ON | settings))
        trainer.callback_handler.callbacks[-1]._probes[0]._rows *= 50
        trainer.train()
        found.append([log for log in trainer.state.log_history if "certificate/measured" in log])
    for near, far in zip(*found, strict=True):
        assert near["certificate/measured_se"] < 0.5 * far["certificate/measured_se"]
        assert abs(near["certificate/measured"] - far["certificate/measured"]) < 4 * far["certificate/measured_se"]
        assert near["diagnostics/tokens_decoded"] < far["diagnostics/tokens_decoded"]


@pytest.mark.parametrize("transform", [{"repetition_penalty": 1.2}, {"typical_p": 0.9}])
def test_transforms_that_cannot_be_verified_are_sampled_anew(tmp_path, transform):
    """Those of a frozen agent, whose probabilities nothing weighs."""
    team = make_team(3)
    team[2].trainable, team[2].generation_kwargs = False, transform
    trainer = make_trainer(tmp_path, team, **(MOVING | ON))
    assert not can_be_verified(trainer.args, [member.agent for member in trainer.members])
    trainer.train()
    logs = [log for log in trainer.state.log_history if "certificate/measured" in log]
    assert len(logs) == 4 and all(log["certificate/measured_se"] > 0 for log in logs)


def test_penalty_is_that_of_the_kl_by_own_turn(tmp_path):
    _, logs = run(tmp_path, num_rounds=2, kl_estimator="exact", num_stages=1, **ON)
    for log, name in zip(logs, "xy", strict=True):
        # The larger of the two turns' KLs is at most twice their mean, of which only the first counts
        assert 0 < log["certificate/penalty"] <= (2 * 2 * 1.5 * log[f"agent/{name}/kl"]) ** 0.5


def test_missing_returns():
    nan = torch.nan
    assert fill_missing(torch.tensor([1.0, nan, 3.0, nan, nan, nan]), 3).tolist() == [1, 2, 3, 0, 0, 0]
    assert fill_missing(torch.tensor([1.0, nan, 3.0]), None).tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"certificate_gamma": 1.0}, "the discounted bound is infinite at 1"),
        ({"certificate_prompts": 0}, "`certificate_prompts` must be at least 1 prompt"),
        ({"advantage_bound": 0.0}, "`advantage_bound` must be positive"),
    ],
)
def test_bad_settings(fields, message):
    with pytest.raises(ValueError, match=message):
        make_config("x", **fields)
