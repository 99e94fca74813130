import pytest
from tiny import make_team, make_trainer

from trl_teamtr.diagnostics.heldout_kl import HeldOutKLCallback


def test_held_out_kl_is_measured_for_every_accepted_update(tmp_path):
    trainer = make_trainer(
        tmp_path,
        make_team(2),
        num_stages=3,
        trust_region_radius=0.05,
        per_device_train_batch_size=64,
        num_generations=16,
    )
    callback = HeldOutKLCallback(trainer, trainer.eval_dataset, size=64)
    trainer.add_callback(callback)
    trainer.train()
    logged = [
        (name, log[f"agent/{name}/kl_heldout"], log[f"agent/{name}/kl"])
        for log in trainer.state.log_history
        for name in "xy"
        if f"agent/{name}/kl_heldout" in log
    ]
    assert [(name, kl) for name, kl, _ in logged] == [(name, kl) for name, kl, _ in callback.kls]
    # The same quantity as the KL that decided on acceptance, on other rollouts
    heldout, own = (sum(values) for values in list(zip(*logged, strict=True))[1:])
    assert len(logged) == 6 and 0.2 * own < heldout < 5 * own
    assert callback.out_of_region_rate == sum(kl > 0.05 for _, kl, _ in callback.kls) / 6


def test_held_out_kl_leaves_rejected_updates_out(tmp_path):
    trainer = make_trainer(tmp_path, make_team(1), trust_region_radius=1e-8, max_backtracks=0)
    callback = HeldOutKLCallback(trainer, trainer.eval_dataset, size=8)
    trainer.add_callback(callback)
    trainer.train()
    assert trainer.active.report.rejected and callback.kls == [] and callback.out_of_region_rate == 0


def test_held_out_kl_is_deterministic(tmp_path):
    kls = []
    for _ in range(2):
        trainer = make_trainer(tmp_path, make_team(1), trust_region_radius=0.05)
        callback = HeldOutKLCallback(trainer, trainer.eval_dataset, size=8)
        trainer.add_callback(callback)
        trainer.train()
        kls.append(callback.kls[0][1])
    assert kls[0] == pytest.approx(kls[1], abs=0)
