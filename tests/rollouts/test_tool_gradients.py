"""The gradient of an agent's update with calls of tools, against that of the exact mean return of a team on its world."""

import copy

import pytest
import torch
from gradients import all_together, flat
from tool_teams import PROMPT, Dial, Lots, ToolCase, context_of, tool_team

from trl_teamtr.conversation.view import View
from trl_teamtr.rollouts.rollouts import replay


nightly = pytest.param(Lots, marks=pytest.mark.nightly)


def reward_of_calls(transcripts, **kwargs):
    """Depends on what was said, called and found, and by whom."""
    return [value(rollout) for rollout in transcripts]


def value(messages):
    said = "".join(message["content"] for message in messages if message["role"] == "assistant")
    found = "".join(message["content"] for message in messages if message["role"] == "tool")
    return said.count("a") - 0.5 * said.count("u") + 0.7 * found.count("b") - 0.2 * len(found)


def thrift(transcripts, **kwargs):
    """A reward of one agent's own: calls cost it something."""
    return [-float(sum(message["role"] == "tool" for message in rollout)) for rollout in transcripts]


def echo(transcripts, **kwargs):
    """Says nothing of rollouts without a call."""
    found = [[message["content"] for message in rollout if message["role"] == "tool"] for rollout in transcripts]
    return [
        float(rollout[-1]["content"] == own[-1]) if own else None
        for rollout, own in zip(transcripts, found, strict=True)
    ]


def make_case(folder, world, **own):
    fields = {"loss_type": "dr_grpo", "scale_rewards": "none", "reward_funcs": reward_of_calls}
    return ToolCase(folder, world, None, **(fields | own))


def parts(member, transcript):
    """What an agent has sampled in a rollout: each segment, after what it had read."""
    for turn, message in enumerate(transcript.messages):
        if message.agent == member.name:
            before = copy.copy(transcript)
            before.messages = transcript.messages[:turn]
            for number, use in enumerate((*message.tool_uses, None)):
                uses = message.tool_uses[:number]
                ids = message.ids[: uses[-1].after] if uses else ()
                end = len(message.ids) if use is None else use.after
                yield context_of(member.speaker, before, ids, uses), message.ids[len(ids) : end]


def true_gradient(member, rollouts, returns):
    """
    Gradient of J = Σ p(rollout) R(rollout) in the member's weights, by autograd through p: the probability of each of its ids by a
    plain forward, and everything else, results of tools included, held fixed.
    """
    wanted = [
        [(*context, *ids[:i]) for context, ids in parts(member, t) for i in range(len(ids))] for t, _ in rollouts
    ]
    picked = [[token for _, ids in parts(member, t) for token in ids] for t, _ in rollouts]
    known = {}
    for length in sorted({len(context) for own in wanted for context in own}):
        contexts = sorted({context for own in wanted for context in own if len(context) == length})
        logps = member.model(torch.tensor(contexts)).logits[:, -1].log_softmax(dim=-1)
        known |= dict(zip(contexts, logps, strict=True))
    total = torch.zeros(())
    for (_, p), contexts, ids, value in zip(rollouts, wanted, picked, returns, strict=True):
        logp = sum((known[c][token] for c, token in zip(contexts, ids, strict=True)), torch.zeros(()))
        # p times the ratio of probabilities, which is one here
        total = total + p * value * (logp - logp.detach()).exp()
    return flat(torch.autograd.grad(total, list(member.model.parameters())))


def found_gradient(case, member, rollouts):
    """By the trainer, on its own batch of all rollouts."""
    played = replay([copy.copy(transcript) for transcript, _ in rollouts], case.trainer.team.speakers)
    probabilities = torch.tensor([p for _, p in rollouts])
    return all_together(member, [{"prompt": PROMPT}] * len(rollouts), played, probabilities)


def distance(found, expected):
    """Relative to the length of the expected gradient; about 1e-5 is rounding."""
    return ((found - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("world", [Dial, nightly])
def test_gradient_with_calls_is_that_of_the_mean_return(tmp_path, monkeypatch, world):
    case = make_case(tmp_path, world)
    rollouts = case.all_rollouts()
    assert sum(p for _, p in rollouts) == pytest.approx(1, abs=1e-5)
    assert sum(p for t, p in rollouts if any(message.tool_uses for message in t.messages)) > 0.2
    returns = reward_of_calls([transcript.as_dicts() for transcript, _ in rollouts])
    for member in case.trainer.members:
        expected = true_gradient(member, rollouts, returns)
        assert expected.norm() > 1e-2
        assert distance(found_gradient(case, member, rollouts), expected) < 1e-3

    # Results that count as sampled, and a message of which only the last segment counts, give another
    def count_results(view, last, ids):
        hear(view, last, ids)
        view.mask[len(view.mask) - len(ids) :] = [1] * len(ids)

    def forget_the_call(view, ids, logps=None, goes_on=False):
        if goes_on:
            view.mask = [0] * len(view.mask)
        write(view, ids, logps, goes_on)

    hear, write = View.hear, View.write
    member = case.trainer.members[0]
    expected = true_gradient(member, rollouts, returns)
    for name, wrong in (("hear", count_results), ("write", forget_the_call)):
        with monkeypatch.context() as patch:
            patch.setattr(View, name, wrong)
            other = found_gradient(case, member, rollouts)
        assert distance(other, expected) > 0.05, name


def test_gradient_with_calls_and_own_rewards_is_that_of_each_agents_return(tmp_path):
    team = tool_team()
    team[1].reward_funcs, team[1].reward_weights = [thrift, echo], [0.5, 2.0]
    case = make_case(tmp_path, Dial, team=team)
    rollouts = case.all_rollouts()
    said = [transcript.as_dicts() for transcript, _ in rollouts]
    of_team, gradients = torch.tensor(reward_of_calls(said)), []
    own = torch.tensor([0.5 * a + 2.0 * (b or 0.0) for a, b in zip(thrift(said), echo(said), strict=True)])
    for member, returns in zip(case.trainer.members, (of_team, of_team + own), strict=True):
        expected = true_gradient(member, rollouts, returns)
        assert distance(found_gradient(case, member, rollouts), expected) < 1e-3
        gradients.append(expected)
    other = true_gradient(case.trainer.members[1], rollouts, of_team)
    assert distance(other, gradients[1]) > 0.1
