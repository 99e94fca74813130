"""The maths of a team against the exact distribution over all of its rollouts."""

import copy
import itertools

import pytest
import torch
from enumeration import chi_square_p_value
from gradients import all_together, flat, surrogate_gradient
from tiny import answer_reward, enumerate_rollouts, make_team, make_trainer, next_logps, replay, view_batch

from trl_teamtr.maths.advantages import group_advantages
from trl_teamtr.maths.kl import k1_kl, k3_kl
from trl_teamtr.policy.scoring import loss_mask, sequence
from trl_teamtr.trust_region.policy_kl import exact_token_kl
from trl_teamtr.trust_region.snapshot import Snapshot


PROMPT = "ua"

# agents, rounds, vocabulary, router
SHAPES = [(2, 1, 4, "round_robin"), (3, 1, 3, "round_robin"), (2, 2, 3, "round_robin"), (2, 1, 3, "random")]


@pytest.fixture(params=[(2, 1, 4), (3, 1, 3), (2, 2, 3)], ids=lambda s: "agents{}-rounds{}-vocab{}".format(*s))
def team(request, tmp_path):
    num_agents, rounds, size = request.param
    return make_trainer(tmp_path, make_team(num_agents, size), num_rounds=rounds, trust_region_radius=0.05)


def nudge(model, scale=0.1, seed=1):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=generator)


def returns_of(rollouts):
    transcripts = [[{"content": m.text} for m in r.messages] for r in rollouts]
    return torch.tensor(answer_reward(None, transcripts))


def token_logps(agent, batch):
    with torch.no_grad():
        return agent._get_per_token_logps_and_entropies(agent.model, *sequence(batch))[0]


@pytest.mark.parametrize("num_agents, rounds, size, router", SHAPES)
def test_sampled_rollouts_follow_the_exact_distribution(tmp_path, num_agents, rounds, size, router):
    total = 10_000
    trainer = make_trainer(tmp_path, make_team(num_agents, size), num_rounds=rounds, router_kind=router)
    sampled = trainer.team.collect([{"prompt": PROMPT}] * total).transcripts

    def key(rollout):
        return tuple((m.agent, m.ids) for m in rollout.messages)

    if router == "round_robin":
        rollouts = enumerate_rollouts(trainer, PROMPT)
    else:
        rollouts = []
        for order in itertools.product(trainer.team.names, repeat=trainer.team.rules.max_turns):
            trainer.team.rules.router = lambda t, order=order: order[len(t.messages)]
            for rollout in enumerate_rollouts(trainer, PROMPT):
                rollout.logps[0] += torch.tensor(1 / num_agents ** len(order), dtype=torch.float64).log().item()
                rollouts.append(rollout)
    assert sum(r.probability for r in rollouts) == pytest.approx(1, abs=1e-6)
    counts = {}
    for transcript in sampled:
        counts[key(transcript)] = counts.get(key(transcript), 0) + 1
    assert chi_square_p_value(counts, rollouts, total, key) > 1e-3
    # The test can tell: the same counts do not fit a team whose first agent has moved
    nudge(trainer.members[0].model, 0.2)
    if router == "round_robin":
        assert chi_square_p_value(counts, enumerate_rollouts(trainer, PROMPT), total, key) < 1e-3


def test_view_scores_own_tokens_and_nothing_else(team):
    rollouts = enumerate_rollouts(team, PROMPT)
    for agent in team.members:
        batch = view_batch(agent, replay(team, PROMPT, rollouts))
        scored = (token_logps(agent, batch) * loss_mask(batch)).sum(1)
        expected = torch.tensor([r.logp_of(agent.name) for r in rollouts])
        torch.testing.assert_close(scored, expected, atol=1e-4, rtol=0)


def test_temperature_is_that_of_the_policy_which_samples(tmp_path):
    agents = make_team(2)
    agents[1].generation_kwargs = {"temperature": 0.5}
    trainer = make_trainer(tmp_path, agents)
    rollouts = enumerate_rollouts(trainer, PROMPT)[:20]
    batch = view_batch(trainer.members[1], replay(trainer, PROMPT, rollouts))
    scored = (token_logps(trainer.members[1], batch) * loss_mask(batch)).sum(1)
    views = replay(trainer, PROMPT, rollouts).views["y"]
    for lp, view in zip(scored, views, strict=True):
        own, context = 0.0, view.prompt_ids
        for token in view.completion_ids:
            own += next_logps(agents[1].model, context, temperature=0.5)[token].item()
            context = context + [token]
        assert lp.item() == pytest.approx(own, abs=1e-4)


def test_kl_of_messages_is_the_sum_over_tokens_and_its_estimators_are_unbiased(team):
    """Lemma 3.2, for each agent: message KL = expected sum of token KLs = expectation of k1 and of k3."""
    rollouts = enumerate_rollouts(team, PROMPT)
    p = torch.tensor([r.probability for r in rollouts], dtype=torch.float64)
    for agent in team.members:
        batch = view_batch(agent, replay(team, PROMPT, rollouts))
        mask, snapshot = loss_mask(batch), Snapshot(agent.engine, with_optimizer=False)
        old = token_logps(agent, batch)
        nudge(agent.model)
        new = token_logps(agent, batch)
        # By the definition: the log-ratio of whole messages, summed over the agent's messages in a rollout
        message_kl = (p * ((old - new) * mask).sum(1).double()).sum()
        with torch.no_grad():
            exact = (exact_token_kl(agent.speaker.policy, batch, snapshot, agent.temperature) * mask).sum(1).double()
        assert (p * exact).sum() == pytest.approx(message_kl.item(), abs=1e-5)
        for estimator in (k1_kl, k3_kl):
            estimate = (p * (estimator(old, new) * mask).sum(1).double()).sum()
            assert estimate == pytest.approx(message_kl.item(), abs=1e-5)
        assert message_kl > 1e-3
        assert (k3_kl(old, new) >= 0).all()
        snapshot.restore()


def true_gradient(team, agent, rollouts, returns=None):
    """Gradient of J = Σ p(rollout) R(rollout) in the agent's weights, token by token through a plain forward."""
    returns = returns_of(rollouts) if returns is None else returns
    others = torch.tensor(
        [sum(lp for m, lp in zip(r.messages, r.logps, strict=True) if m.agent != agent.name) for r in rollouts]
    )
    own = []
    for view in replay(team, PROMPT, rollouts).views[agent.name]:
        ids = torch.tensor([view.prompt_ids + view.completion_ids])
        logps = agent.model(ids).logits[0].log_softmax(-1)
        first = len(view.prompt_ids)
        picked = logps[first - 1 : -1].gather(1, ids[0, first:, None])[:, 0]
        own.append((picked * torch.tensor(view.mask)).sum())
    value = ((torch.stack(own) + others).exp() * returns).sum()
    return torch.autograd.grad(value, list(agent.model.parameters()))


def on_rollouts(team, agent, rollouts, advantages):
    """Gradient of the trainer's own loss on `rollouts` with the given advantages."""
    return surrogate_gradient(agent, view_batch(agent, replay(team, PROMPT, rollouts)) | {"advantages": advantages})


@pytest.mark.parametrize("num_agents, rounds", [(2, 1), (2, 2)])
def test_expected_surrogate_gradient_is_that_of_the_return(tmp_path, num_agents, rounds):
    team = make_trainer(tmp_path, make_team(num_agents), num_rounds=rounds, loss_type="dr_grpo")
    rollouts = enumerate_rollouts(team, PROMPT)
    p = torch.tensor([r.probability for r in rollouts])
    for agent in team.members:
        expected = flat(true_gradient(team, agent, rollouts))
        weighted = len(rollouts) * p * returns_of(rollouts)
        gradient = -agent.max_completion_length * on_rollouts(team, agent, rollouts, weighted)
        assert expected.norm() > 1e-3
        torch.testing.assert_close(gradient, expected, atol=1e-5, rtol=1e-3)


def test_group_mean_baseline_scales_the_gradient_by_one_minus_one_over_g(tmp_path):
    team = make_trainer(tmp_path, make_team(2), loss_type="dr_grpo")
    rollouts = enumerate_rollouts(team, PROMPT)
    pairs = list(itertools.product(rollouts, repeat=2))  # every group of G = 2
    p = torch.tensor([a.probability * b.probability for a, b in pairs]).repeat_interleave(2)
    flat_pairs = [rollout for pair in pairs for rollout in pair]
    advantages = group_advantages(returns_of(flat_pairs), 2, scale="none", clip=None)
    agent = team.members[0]
    gradient = on_rollouts(team, agent, flat_pairs, len(flat_pairs) * p * advantages)
    expected = (1 - 1 / 2) * 2 * flat(true_gradient(team, agent, rollouts))  # a group holds two rollouts
    torch.testing.assert_close(-agent.max_completion_length * gradient, expected, atol=1e-5, rtol=1e-3)


def test_gradient_of_each_agent_is_that_of_its_own_return(tmp_path):
    """The second agent has two rewards of its own, one of which says nothing of most rollouts."""

    def brevity(completions, **kwargs):
        return [-float(len(completion)) for completion in completions]

    async def echo(transcripts, **kwargs):
        texts = [[message["content"] for message in messages] for messages in transcripts]
        return [1.0 if own[0] == own[1] and own[0] else None for own in texts]

    members = make_team(2)
    members[1].reward_funcs, members[1].reward_weights = [brevity, echo], [0.5, 2.0]
    team = make_trainer(tmp_path, members, loss_type="dr_grpo", scale_rewards="none")
    rollouts = enumerate_rollouts(team, PROMPT)
    texts = [[message.text for message in rollout.messages] for rollout in rollouts]
    own = torch.tensor([-0.5 * len(b) + 2.0 * (a == b and a != "") for a, b in texts])
    p, rows = torch.tensor([rollout.probability for rollout in rollouts]), [{"prompt": PROMPT}] * len(rollouts)
    found = []
    for agent, returns in zip(team.members, (returns_of(rollouts), returns_of(rollouts) + own), strict=True):
        gradient = all_together(agent, rows, replay(team, PROMPT, rollouts), p)
        expected = flat(true_gradient(team, agent, rollouts, returns))
        torch.testing.assert_close(gradient, expected, atol=1e-5, rtol=1e-3)
        found.append(expected)
    assert (flat(true_gradient(team, team.members[1], rollouts)) - found[1]).norm() > 0.1 * found[1].norm()


def test_penalty_gradient_is_zero_at_the_current_policy_and_not_beyond(tmp_path):
    team = make_trainer(tmp_path, make_team(1), kl_coef=1.0, trust_region_radius=1.0)
    agent, rollouts = team.members[0], enumerate_rollouts(team, PROMPT)
    batch = view_batch(agent, replay(team, PROMPT, rollouts)) | {"advantages": torch.zeros(len(rollouts))}
    batch |= {"num_items_in_batch": torch.tensor(1.0), "num_messages_in_batch": batch["num_messages"].sum()}
    agent.model.train()
    agent.current_gradient_accumulation_steps = 1
    first = agent._compute_loss(agent.model, batch)
    assert first.item() == 0
    old = copy.deepcopy(batch["old_per_token_logps"])
    nudge(agent.model)
    loss = agent._compute_loss(agent.model, batch)
    k3 = k3_kl(old, token_logps(agent, batch)) * loss_mask(batch)
    assert loss.item() == pytest.approx((k3.sum() / batch["num_messages"].sum()).item(), rel=1e-4)
    loss.backward()
    assert max(p.grad.abs().max().item() for p in agent.model.parameters()) > 1e-4
