"""The diagnostics measure what they say, in the stages that they say, and leave training alone."""

import collections
import random

import numpy as np
import pytest
import torch
from test_drafts import key, p_value
from tiny import enumerate_rollouts, make_config, make_team, make_trainer

from trl_teamtr.diagnostics import OccupancyCallback, go_on_after, own_randomness
from trl_teamtr.rollout import Rollouts


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
        assert all(after[name] == value for name, value in before.items() if name not in ("step_time",))


def test_what_is_logged_of_each_update(tmp_path):
    _, logs = run(tmp_path, log_occupancy=True, diagnostics_every=2)
    measured = ["occupancy/tv" in log for log in logs]
    assert measured == [True] * 3 + [False] * 3 + [True] * 3
    for position, log in enumerate(log for log in logs if "occupancy/tv" in log):
        first = position % 3 == 0
        assert (log["occupancy/tv"] == 0) == first
        assert (log["occupancy/ess"] == 1) == first
        assert (log["occupancy/stale_gap"] == log["occupancy/stale_gap_floor"]) == first
        parts = log["occupancy/stale_gap_contexts"] + log["occupancy/stale_gap_returns"]
        assert abs(parts) == pytest.approx(log["occupancy/stale_gap"], abs=1e-9)
        assert log["occupancy/stale_gap_se"] > 0 and log["diagnostics/seconds"] > 0
        # All of the team's messages once more, and what follows the agent's
        assert log["diagnostics/tokens_decoded"] >= log["rollout/tokens_decoded"] / 2


def test_off_means_that_nothing_is_there(tmp_path):
    trainer = make_trainer(tmp_path, make_team(2))
    assert not [callback for callback in trainer.callback_handler.callbacks if type(callback) is OccupancyCallback]
    with pytest.raises(ValueError, match="`diagnostics_every` must be at least 1"):
        make_config(tmp_path, diagnostics_every=0)


def test_a_run_that_is_resumed_in_mid_stage_measures_from_the_next_stage_on(tmp_path):
    from test_checkpoint import StopAfter

    fields = MOVING | {"save_strategy": "steps", "save_steps": 1, "log_occupancy": True, "diagnostics_every": 1}
    make_trainer(tmp_path, make_team(3), callbacks=[StopAfter(4)], **fields).train()
    trainer = make_trainer(tmp_path, make_team(3), **fields)
    trainer.train(resume_from_checkpoint=True)
    measured = [log["step"] for log in trainer.state.log_history if "occupancy/tv" in log]
    assert measured == [1, 2, 3, 4, 7, 8, 9]


@pytest.mark.parametrize("number", [0, 1])
def test_continued_rollouts_have_old_contexts_and_new_ends(tmp_path, number):
    """Their law: that of the stage's start up to the agent's last message, that of the present team from there on."""
    torch.manual_seed(0)
    trainer = make_trainer(tmp_path, make_team(2), num_rounds=2, max_turns=3, per_device_train_batch_size=400)
    agent, total = trainer.members[number], 6000
    start = enumerate_rollouts(trainer, "au")
    old = trainer.collect_rollouts([{"prompt": "au"}] * total)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for param in trainer.members[1 - number].model.parameters():
            param += 0.4 * torch.randn(param.shape, generator=generator)
    now = enumerate_rollouts(trainer, "au")
    last = 2 if number == 0 else 1
    law, given = {}, collections.Counter()
    for before in start:
        given[key(before)[: last + 1]] += before.probability
    present = collections.Counter()
    for after in now:
        present[key(after)[: last + 1]] += after.probability
    for after in now:
        begin = key(after)[: last + 1]
        law[key(after)] = given[begin] * after.probability / present[begin]
    found = go_on_after(agent, old)
    assert isinstance(found, Rollouts)
    for transcript, before in zip(found.transcripts, old.transcripts, strict=True):
        assert transcript.messages[: last + 1] == before.messages[: last + 1]
    counts = collections.Counter(key(transcript) for transcript in found.transcripts)
    assert p_value(counts, law) > 1e-3
    if number == 1:  # something follows, so that stale rollouts have another law
        assert p_value(collections.Counter(key(transcript) for transcript in old.transcripts), law) < 1e-6


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
