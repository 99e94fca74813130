"""What an update says of its messages' probabilities is true of the weights that it leaves."""

import pytest
import torch
from tiny import make_team, make_trainer

from trl_teamtr.rollouts.stage_weights import ScoredView


FIELDS = {"resampling": "speculative", "num_stages": 3, "learning_rate": 0.05, "num_rounds": 2}
MANY = {"gradient_accumulation_steps": 1, "learning_rate": 5e-3}
UPDATES = {
    "one step": {"trust_region_radius": 1.0},
    "backtracks": {"trust_region_radius": 0.01, "num_iterations": 4, "max_backtracks": 8},
    "several steps": {"trust_region_radius": 0.1, "num_iterations": 3, **MANY, "learning_rate": 1e-3},
    "several steps, all of them": {"trust_region_radius": 5.0, **MANY},
    "held out": {"trust_region_radius": 0.05, "monitor_fraction": 0.5},
    "a floor each stage": {"trust_region_radius": 0.05, "floor_every": 1},
    "autocast": {"trust_region_radius": 0.05, "num_iterations": 3, "bf16": True, "floor_every": 1},
    "not enforced": {"trust_region_radius": 0.01, "enforce_radius": False, "temperature": 0.7},
}


@pytest.mark.parametrize("fields", UPDATES.values(), ids=list(UPDATES))
def test_log_ratios_are_those_of_the_accepted_weights(tmp_path, fields):
    batch = {"per_device_train_batch_size": 2, "steps_per_generation": 4}
    trainer = make_trainer(tmp_path, make_team(2), **FIELDS | batch | fields)
    pass_on, found = trainer.resampler.agent_was_updated, []

    def look(speaker, report, before):
        if not report.rejected:
            scored = ScoredView(speaker, trainer.resampler.stage.rollouts, before, 100)
            torch.testing.assert_close(report.log_ratios * scored.mask, scored.log_ratios, atol=2e-6, rtol=1e-4)
            found.append((scored.log_ratios.abs().max().item(), report.backtracks, report.inner_steps))
        pass_on(speaker, report, before)

    trainer.resampler.agent_was_updated = look
    trainer.train()
    largest, backtracks, steps = zip(*found, strict=True)
    assert len(found) >= 4 and max(largest) > 1e-3
    if "max_backtracks" in fields:
        assert max(backtracks) > 0
    if fields.get("gradient_accumulation_steps"):
        assert max(steps) > 1


@pytest.mark.parametrize(
    "fields", [{"trust_region_radius": None}, {"trust_region_radius": 0.05, "kl_estimator": "exact"}], ids=str
)
def test_there_are_none_without_a_k3(tmp_path, fields):
    trainer = make_trainer(
        tmp_path, make_team(2), **FIELDS | {"num_stages": 1, "gradient_accumulation_steps": 1} | fields
    )
    pass_on, found = trainer.resampler.agent_was_updated, []
    trainer.resampler.agent_was_updated = lambda *args: (found.append(args[1].log_ratios), pass_on(*args))
    trainer.train()
    assert found == [None, None]
