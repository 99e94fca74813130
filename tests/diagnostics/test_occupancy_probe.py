"""The occupancy probe: what it logs, and the law of the rollouts that it measures on."""

import collections

import pytest
import torch
from draft_cases import key, p_value
from tiny import enumerate_rollouts, make_team, make_trainer

from trl_teamtr.diagnostics.occupancy_probe import go_on_after
from trl_teamtr.rollouts.rollouts import Rollouts


MOVING = {"learning_rate": 2e-2, "trust_region_radius": 0.2, "num_stages": 2, "logging_steps": 1}


def test_what_is_logged_of_each_update(tmp_path):
    trainer = make_trainer(tmp_path, make_team(3), log_occupancy=True, diagnostics_every=1, **MOVING)
    trainer.train()
    for position, log in enumerate(log for log in trainer.state.log_history if "occupancy/tv" in log):
        first = position % 3 == 0
        assert (log["occupancy/tv"] == 0) == first
        assert (log["occupancy/ess"] == 1) == first
        assert (log["occupancy/stale_gap"] == log["occupancy/stale_gap_floor"]) == first
        parts = log["occupancy/stale_gap_contexts"] + log["occupancy/stale_gap_returns"]
        assert abs(parts) == pytest.approx(log["occupancy/stale_gap"], abs=1e-9)
        assert log["occupancy/stale_gap_se"] > 0
        # One round, in the order of speaking: whoever speaks later has not been updated
        assert log["occupancy/stale_gap_returns"] == 0


@pytest.mark.parametrize("router", ["round_robin", "random"])
def test_what_no_updated_agent_speaks_after_is_not_written_again(tmp_path, router):
    trainer = make_trainer(tmp_path, make_team(3), router_kind=router, num_rounds=2, allow_silent_agents=True)
    first, second, _ = trainer.team.names
    old = trainer.team.collect([{"prompt": "au"}] * 60)
    stood = 0
    for moved in (set(), {first}, {first, second}):
        found = trainer.team.resample(go_on_after(trainer.members[2].name, old, moved))
        decoded = 0
        for transcript, before in zip(found.transcripts, old.transcripts, strict=True):
            turns = before.turns_of(trainer.members[2].name)
            after = before.messages[turns[-1] + 1 if turns else 0 :]
            same = not any(message.agent in moved for message in after)
            stood += same
            assert not same or transcript == before
            decoded += not same
        assert (found.tokens_decoded > 0) == (decoded > 0)
    assert stood >= 60


@pytest.mark.parametrize("number", [0, 1])
def test_continued_rollouts_have_old_contexts_and_new_ends(tmp_path, number):
    """Their law: that of the stage's start up to the agent's last message, that of the present team from there on."""
    torch.manual_seed(0)
    trainer = make_trainer(tmp_path, make_team(2), num_rounds=2, max_turns=3, per_device_train_batch_size=400)
    agent, total = trainer.members[number], 6000
    start = enumerate_rollouts(trainer, "au")
    old = trainer.team.collect([{"prompt": "au"}] * total)
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
    found = trainer.team.resample(go_on_after(agent.name, old, {trainer.members[1 - number].name}))
    assert isinstance(found, Rollouts)
    for transcript, before in zip(found.transcripts, old.transcripts, strict=True):
        assert transcript.messages[: last + 1] == before.messages[: last + 1]
    counts = collections.Counter(key(transcript) for transcript in found.transcripts)
    assert p_value(counts, law) > 1e-3
    if number == 1:  # something follows, so that stale rollouts have another law
        assert p_value(collections.Counter(key(transcript) for transcript in old.transcripts), law) < 1e-6
