from types import SimpleNamespace

import pytest
from tiny import make_team, make_trainer
from transformers import TrainerCallback

from trl_teamtr.runs import run_state


class StopAfter(TrainerCallback):
    def __init__(self, updates):
        self.updates = updates

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop |= state.global_step == self.updates


SETTINGS = {"num_stages": 7, "logging_steps": 3, "save_strategy": "steps", "save_steps": 1, "update_order": "random"}
TIMINGS = ("step_time", "train_runtime", "train_samples_per_second", "train_steps_per_second", "total_flos")
TIMINGS += ("seconds/rollouts", "seconds/scoring", "seconds/update")


def logs_of(trainer):
    """Without what depends on the clock."""
    return [{key: value for key, value in log.items() if key not in TIMINGS} for log in trainer.state.log_history]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    trainer = make_trainer(tmp_path_factory.mktemp("whole"), make_team(1), **SETTINGS)
    trainer.train()
    return logs_of(trainer)


@pytest.mark.parametrize("updates", [2, 3, 5])
def test_what_is_pending_between_two_logs_is_restored_to_the_bit(tmp_path, whole, updates):
    make_trainer(tmp_path, make_team(1), callbacks=[StopAfter(updates)], **SETTINGS).train()
    trainer = make_trainer(tmp_path, make_team(1, seed=9), **SETTINGS)
    trainer.train(resume_from_checkpoint=True)
    assert [log["step"] for log in whole] == [3, 6, 7]
    assert logs_of(trainer) == whole  # the last log, with the mean loss of the whole run, included


def test_time_of_the_interrupted_run_counts_and_the_time_between_does_not(tmp_path):
    trainer = make_trainer(tmp_path, make_team(1), **SETTINGS | {"num_stages": 1})
    trainer.train()
    state = run_state.read(str(tmp_path / "checkpoint-1"))
    assert 0 < state["seconds"] < 600
    trainer._start_time = 0.0
    start = run_state.begin(trainer, str(tmp_path / "checkpoint-1"))
    assert start == trainer._start_time > 1e9


def fake_trainer(processes=1, kind="DistributedType.NO", per_device=8, accumulation=1, generations=4):
    args = SimpleNamespace(
        per_device_train_batch_size=per_device,
        steps_per_generation=accumulation,
        generation_batch_size=per_device * accumulation * processes,
        num_generations=generations,
        advantage_group="rollout",
    )
    accelerator = SimpleNamespace(num_processes=processes, distributed_type=kind)
    return SimpleNamespace(
        args=args,
        accelerator=accelerator,
        _metrics={"train": {}},
        _tr_loss=SimpleNamespace(item=lambda: 0.0),
        _total_loss_scalar=0.0,
        _globalstep_last_logged=0,
        _initial_num_input_tokens_seen=0,
        _initial_global_step=0,
        _start_time=0.0,
    )


DEEPSPEED = "DistributedType.DEEPSPEED"

REFUSED = [
    ({}, {"per_device": 16}, "On 1 process.*must be 8; they are 16 and 1"),
    (
        {},
        {"per_device": 2, "accumulation": 2},
        "saved with `generation_batch_size=8`.*this run has 4 .*they are 2 and 2",
    ),
    ({}, {"processes": 2, "kind": "DistributedType.MULTI_CPU"}, r"On 2 process.*must be 4; they are 8 and 1"),
    ({}, {"processes": 3, "per_device": 4}, "Use a number of processes that divides 8; it is 3"),
    ({}, {"generations": 2}, "Set `num_generations=4`"),
    (
        {"processes": 2, "kind": DEEPSPEED, "per_device": 4},
        {"processes": 4, "kind": DEEPSPEED, "per_device": 2},
        "partitioned for 2 process.*has 4 .*with 2, or start a new run from the saved weights: `model='",
    ),
    ({}, {"trained": "xy"}, "the trained agents are x, y, z, but in this run x, y: .* Set `trainable` as it was"),
    ({"kind": DEEPSPEED}, {}, "saved under DeepSpeed.*this run has 1 "),
    ({}, {"kind": DEEPSPEED}, "saved without DeepSpeed"),
]


@pytest.mark.parametrize("saved, now, message", REFUSED)
def test_run_of_another_shape_is_refused(tmp_path, saved, now, message):
    trained, now = now.get("trained", "xyz"), {name: value for name, value in now.items() if name != "trained"}
    run_state.write(fake_trainer(**saved), "xyz", str(tmp_path))
    with pytest.raises(ValueError, match=message):
        run_state.check(fake_trainer(**now), trained, str(tmp_path))


@pytest.mark.parametrize(
    "now",
    [{"per_device": 4, "accumulation": 2}, {"processes": 2, "kind": "DistributedType.MULTI_CPU", "per_device": 4}],
)
def test_same_batch_on_other_processes_is_accepted(tmp_path, now):
    run_state.write(fake_trainer(), "xyz", str(tmp_path))
    run_state.check(fake_trainer(**now), "xyz", str(tmp_path))


def test_checkpoint_of_an_older_version_is_accepted(tmp_path):
    run_state.check(fake_trainer(), "xyz", str(tmp_path))
    assert run_state.read(str(tmp_path)) is None
