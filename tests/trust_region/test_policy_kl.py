"""The KL over the full vocabulary, of the policy before an update and after it."""

import pytest
import torch
from tiny import enumerate_rollouts, make_team, make_trainer, replay, view_batch

from trl_teamtr.policy.scoring import loss_mask
from trl_teamtr.trust_region import policy_kl
from trl_teamtr.trust_region.snapshot import Snapshot


@pytest.fixture
def moved(tmp_path):
    """An agent after an update, its views of some rollouts, and its policy before."""
    trainer = make_trainer(tmp_path, make_team(2), num_rounds=2, temperature=0.8)
    agent, rollouts = trainer.members[1], enumerate_rollouts(trainer, "au")[::400]
    batch = view_batch(agent, replay(trainer, "au", rollouts))
    snapshot = Snapshot(agent.engine, with_optimizer=False)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in agent.model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return agent, batch, snapshot


def test_it_is_that_of_a_plain_forward_pass_before_and_after(moved):
    agent, batch, snapshot = moved
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
    first = batch["prompt_ids"].size(1) - 1

    def logps():
        with torch.no_grad():
            return (agent.model(ids, attention_mask=mask).logits[:, first:-1] / 0.8).log_softmax(-1)

    new = logps()
    with snapshot.current_policy():
        old = logps()
    expected = (old.exp() * (old - new)).sum(-1) * loss_mask(batch)
    found = policy_kl.exact_token_kl(agent.speaker.policy, batch, snapshot, 0.8) * loss_mask(batch)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)
    assert expected.sum() > 1e-3


def test_chunks_give_what_one_piece_gives_and_the_policy_is_left_as_it_was(moved, monkeypatch):
    agent, batch, snapshot = moved
    before = [parameter.clone() for parameter in agent.model.parameters()]
    whole = agent.measure_kl([batch], snapshot, "exact")
    monkeypatch.setattr(policy_kl, "LOGITS_PER_CHUNK", 1)
    assert agent.measure_kl([batch], snapshot, "exact") == pytest.approx(whole, rel=1e-5)
    assert whole > 0
    assert all(torch.equal(p, q) for p, q in zip(agent.model.parameters(), before, strict=True))
