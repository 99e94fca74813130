"""The KL over the full vocabulary, of the policy before an update and after it."""

import math

import pytest
import torch
from peft import LoraConfig
from tiny import enumerate_rollouts, make_team, make_trainer, next_logps, replay, view_batch

from trl_teamtr.maths.kl import k3_kl
from trl_teamtr.policy.scoring import loss_mask
from trl_teamtr.policy.transforms import sampling_transforms
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


@pytest.mark.parametrize("transform", [{"top_k": 2}, {"top_p": 0.7}], ids=str)
def test_under_truncated_sampling_it_is_the_kl_of_the_policies_where_the_samples_go(tmp_path, transform):
    """
    Eq. 11 is an expectation over messages of π_cur. Of messages that truncated sampling draws, the expectation of the
    exact KL is the sum over their prefixes, at the probability that these are sampled with, of the KL between the
    next-token distributions; that of k3 is not.
    """
    trainer = make_trainer(tmp_path, make_team(1), **transform)
    assert trainer.kl_estimator == "exact"
    rollouts = enumerate_rollouts(trainer, "au")
    batch = view_batch(trainer, replay(trainer, "au", rollouts))
    prompt = batch["prompt_ids"][0].tolist()
    transforms = sampling_transforms(trainer.speaker.sampling)

    def sampled(context):
        return transforms(torch.tensor([context]), next_logps(trainer.model, context)[None].float())[0].softmax(-1)

    ids = [rollout.messages[0].ids for rollout in rollouts]
    prefixes = {own[:u] for own in ids for u in range(len(own))}
    old = {prefix: next_logps(trainer.model, prompt + list(prefix)) for prefix in prefixes}
    drawn = {prefix: sampled(prompt + list(prefix)) for prefix in prefixes}

    def probability(own):
        return math.prod(drawn[own[:t]][own[t]].item() for t in range(len(own)))

    snapshot, old_logps = Snapshot(trainer.engine, with_optimizer=False), trainer.speaker.token_logps(batch)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    new = {prefix: next_logps(trainer.model, prompt + list(prefix)) for prefix in prefixes}
    expected = sum(probability(p) * (old[p].exp() * (old[p] - new[p])).sum().item() for p in prefixes)

    p = torch.tensor([probability(own) for own in ids])
    assert p.sum() == pytest.approx(1, abs=1e-5) and (p == 0).any()
    exact = policy_kl.exact_token_kl(trainer.speaker.policy, batch, snapshot, 1.0) * loss_mask(batch)
    k3 = k3_kl(old_logps, trainer.speaker.token_logps(batch)) * loss_mask(batch)
    assert (p * exact.sum(1)).sum() == pytest.approx(expected, rel=1e-3)
    assert (p * k3.sum(1)).sum() != pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("adapter", [False, True])
def test_several_batches_take_one_change_of_the_weights(tmp_path, monkeypatch, adapter):
    fields = {"peft_config": LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"])} if adapter else {}
    trainer = make_trainer(tmp_path, make_team(1), num_rounds=2, **fields)
    rollouts = enumerate_rollouts(trainer, "au")[::10]
    batches = [view_batch(trainer, replay(trainer, "au", part)) for part in (rollouts[:3], rollouts[3:], rollouts[:1])]
    snapshot, entered, current_policy = Snapshot(trainer.engine, with_optimizer=False), [], Snapshot.current_policy
    with torch.no_grad():
        for weight in trainer.engine.weights:
            weight += 0.2 * torch.randn(weight.shape)
    one_by_one = [policy_kl.exact_token_kl(trainer.speaker.policy, batch, snapshot, 0.7) for batch in batches]
    monkeypatch.setattr(Snapshot, "current_policy", lambda own: (entered.append(1), current_policy(own))[1])
    monkeypatch.setattr(policy_kl, "LOGITS_PER_CHUNK", 6)
    monkeypatch.setattr(policy_kl, "TOKENS_PER_PASS", 20)
    found = policy_kl.exact_token_kls(trainer.speaker.policy, batches, snapshot, 0.7)
    torch.testing.assert_close(found, one_by_one, atol=1e-6, rtol=1e-4)
    assert len(entered) == 1 and max(kl.max() for kl in found) > 1e-3


def test_memory_for_a_thousand_tokens_of_a_large_vocabulary(tmp_path):
    """At most 256 MiB besides what is there before."""
    team = make_team(1)
    team[0].model.resize_token_embeddings(150_000)
    trainer = make_trainer(tmp_path, team)
    snapshot = Snapshot(trainer.engine, with_optimizer=False)
    ids = torch.randint(150_000, (1, 1001))
    batch = {"prompt_ids": ids[:, :1], "completion_ids": ids[:, 1:]}
    batch |= {"prompt_mask": torch.ones(1, 1), "completion_mask": torch.ones(1, 1000)}
    with torch.profiler.profile(profile_memory=True) as profiler:
        policy_kl.exact_token_kl(trainer.speaker.policy, batch, snapshot, 0.9)
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    assert 2**26 < peak <= 2**28
