"""TRL's adaptive entropy coefficient counts optimizer steps that are kept, and nothing else."""

import pytest
from tiny import make_team, make_trainer


DELTA = 0.001
FIELDS = {
    "use_adaptive_entropy": True,
    "entropy_target": 100.0,  # above any entropy, so that each step adds DELTA
    "entropy_coef": 0.01,
    "entropy_coef_delta": DELTA,
    "entropy_coef_max": 1.0,
    "num_stages": 2,
    "num_iterations": 4,
    "max_idle_updates": None,
}


def logged(trainer, name):
    return [log[f"agent/x/{name}"] for log in trainer.state.log_history if f"agent/x/{name}" in log]


@pytest.mark.parametrize(
    "fields",
    [
        {"learning_rate": 0.05, "trust_region_radius": 0.01},  # passes are discarded
        {"learning_rate": 0.05, "trust_region_radius": 0.01, "max_backtracks": 0},  # updates are rejected
        {"learning_rate": 1e-3, "trust_region_radius": None},
        {
            "learning_rate": 0.05,
            "trust_region_radius": 0.01,
            "steps_per_generation": 2,
            "gradient_accumulation_steps": 1,
        },
    ],
    ids=["stopped early", "rejected", "no radius", "two steps per pass"],
)
def test_each_step_that_is_kept_counts_once(tmp_path, fields):
    trainer = make_trainer(tmp_path, make_team(1), **{**FIELDS, **fields})
    trainer.train()
    rejected = logged(trainer, "rejected") or [0, 0]
    kept = sum(steps for steps, lost in zip(logged(trainer, "inner_steps"), rejected, strict=True) if not lost)
    if "max_backtracks" in fields:
        assert sum(rejected) > 0
    elif fields["trust_region_radius"] is None:
        assert kept == 8
    else:
        assert 2 <= kept < 8  # the last pass of an update was discarded
    assert trainer.entropy_coef == pytest.approx(0.01 + DELTA * kept)


def test_an_interrupted_update_leaves_it_as_it_was(tmp_path, monkeypatch):
    trainer = make_trainer(tmp_path, make_team(1), **FIELDS, learning_rate=0.05, trust_region_radius=10.0)

    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer, "measure_kl", interrupt)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert trainer.entropy_coef == 0.01 and trainer._entropy_window_stats is None
