"""The diagnostics measure what they say, in the stages that they say, and leave training alone."""

import itertools
import random

import numpy as np
import pytest
import torch
from resuming import StopAfter
from tiny import make_config, make_team, make_trainer

from trl_teamtr.diagnostics.callback import DiagnosticsCallback, own_randomness


MOVING = {"learning_rate": 2e-2, "trust_region_radius": 0.2, "num_stages": 3, "logging_steps": 1}


def run(folder, **fields):
    trainer = make_trainer(folder, make_team(3), **(MOVING | fields))
    trainer.train()
    return trainer, [log for log in trainer.state.log_history if "rollout/messages" in log]


def weights(trainer):
    return torch.cat([param.detach().flatten() for member in trainer.members for param in member.model.parameters()])


@pytest.mark.parametrize("mode", ["full", "speculative", "stale"])
def test_training_is_the_same_with_and_without(tmp_path, mode):
    (plain, plain_logs), (measured, logs) = (
        run(tmp_path / str(on), resampling=mode, log_occupancy=on, diagnostics_every=1) for on in (False, True)
    )
    assert torch.equal(weights(plain), weights(measured))
    assert not any(name.startswith(("occupancy/", "diagnostics/")) for log in plain_logs for name in log)
    for before, after in zip(plain_logs, logs, strict=True):
        assert before.keys() < after.keys()
        timed = ("step_time", "seconds/")
        assert all(after[name] == value for name, value in before.items() if not name.startswith(timed))


def test_every_second_stage_is_measured(tmp_path):
    _, logs = run(tmp_path, log_occupancy=True, diagnostics_every=2)
    assert ["occupancy/tv" in log for log in logs] == [True] * 3 + [False] * 3 + [True] * 3
    measured = [log for log in logs if "occupancy/tv" in log]
    # All of the team's messages once more, and what follows the agent's
    assert all(log["diagnostics/tokens_decoded"] >= log["rollout/tokens_decoded"] / 2 for log in measured)
    assert all(log["diagnostics/seconds"] > 0 for log in measured)


def test_nothing_is_measured_on_rollouts_that_an_update_was_fitted_to(tmp_path):
    class Look:
        needs_first = True

        def __init__(self):
            self.found = []

        def start_stage(self):
            pass

        def measure(self, update):
            self.found.append((update.first, update.fresh, trainer.resampler.stage.rollouts))
            return {}

    look = Look()
    trainer = make_trainer(tmp_path, make_team(2), resampling="stale")
    trainer.add_callback(DiagnosticsCallback(trainer, [look]))
    trainer.train()
    (first, fresh, trained), (later, other, _) = look.found
    said = [rollouts.transcripts for rollouts in (first, fresh, trained, other)]
    assert all(a != b for a, b in itertools.combinations(said, 2)) and later is None


def test_off_means_that_nothing_is_there(tmp_path):
    trainer = make_trainer(tmp_path, make_team(2))
    assert not [callback for callback in trainer.callback_handler.callbacks if type(callback) is DiagnosticsCallback]
    with pytest.raises(ValueError, match="`diagnostics_every` must be at least 1"):
        make_config(tmp_path, diagnostics_every=0)


def test_a_run_that_is_resumed_in_mid_stage_measures_from_the_next_stage_on(tmp_path):
    fields = MOVING | {"save_strategy": "steps", "save_steps": 1, "log_occupancy": True, "diagnostics_every": 1}
    make_trainer(tmp_path, make_team(3), callbacks=[StopAfter(4)], **fields).train()
    trainer = make_trainer(tmp_path, make_team(3), **fields)
    trainer.train(resume_from_checkpoint=True)
    measured = [log["step"] for log in trainer.state.log_history if "occupancy/tv" in log]
    assert measured == [1, 2, 3, 4, 7, 8, 9]


def test_own_randomness_leaves_no_trace_and_repeats(tmp_path):
    trainer, drawn = make_trainer(tmp_path, make_team(1)), []
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    expected = random.random(), np.random.rand(), torch.rand(1).item()
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    for _ in range(2):
        with own_randomness(trainer):
            drawn.append((random.random(), np.random.rand(), torch.rand(1).item()))
    assert drawn[0] == drawn[1] != expected
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == expected
