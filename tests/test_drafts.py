"""
Resampled rollouts have the law of the updated team: against its exact distribution, for policies that are chosen
independently of the drafts, and for drafts of drafts.

Block verification by itself is checked by enumeration: tests/test_block_verification.py.
"""

import collections
import itertools

import pytest
import tiny
import torch
from scipy.stats import chi2
from tiny import enumerate_rollouts, make_team, make_trainer

from trl_teamtr import block_verification, drafts
from trl_teamtr.snapshot import Snapshot
from trl_teamtr.trust_region import UpdateReport


PROMPT = "au"
TRANSFORMS = {
    "none": {},
    "temperature": {"temperature": 0.7},
    "top_k": {"top_k": 2},
    "top_p": {"top_p": 0.8},
    "min_p": {"min_p": 0.3},
}


def follow_the_text(transcript):
    """A user's router that depends on what was said."""
    if not transcript.messages:
        return "x"
    if transcript.messages[-1].text == "u":
        return None
    return transcript.agents[-1] if "a" in transcript.messages[-1].text else transcript.agents[0]


class Case:
    """A team that is resampled after updates which know nothing of its rollouts."""

    def __init__(self, folder, agents, rounds, router, transform, mode):
        fields = {"router": follow_the_text} if router == "text" else {"router_kind": router}
        self.transform = TRANSFORMS[transform]
        self.router = router
        self.trainer = make_trainer(
            folder,
            make_team(agents),
            num_rounds=rounds,
            max_turns=min(4, agents * rounds),  # of three agents in two rounds only one speaks twice
            resampling=mode,
            kl_estimator="exact",
            allow_silent_agents=True,
            **self.transform,
            **fields,
        )

    def rollouts(self, total):
        return self.trainer.resampler.rollouts([{"prompt": PROMPT}] * total)

    def update(self, number, seed, scale=0.15):
        agent, generator = self.trainer.members[number], torch.Generator().manual_seed(seed)
        agent.before_update = Snapshot(agent.engine, with_optimizer=False)
        with torch.no_grad():
            for param in agent.model.parameters():
                param += scale * torch.randn(param.shape, generator=generator)
        self.trainer.resampler.agent_was_updated(agent, UpdateReport(inner_steps=1))

    def law(self, monkeypatch):
        """The exact probability of every rollout of the present team."""
        original = tiny.next_logps

        def transformed(model, context):
            return truncate(original(model, context, self.transform.get("temperature", 1.0)), **self.transform)

        with monkeypatch.context() as patch:
            patch.setattr(tiny, "next_logps", transformed)
            if self.router != "random":
                return {key(r): r.probability for r in enumerate_rollouts(self.trainer, PROMPT) if r.probability > 0}
            law, cache, rules, router = {}, {}, self.trainer.rules, self.trainer.rules.router
            for order in itertools.product(self.trainer.team_names, repeat=rules.max_turns):
                rules.router = lambda transcript, order=order: order[len(transcript.messages)]
                for r in enumerate_rollouts(self.trainer, PROMPT, cache):
                    law[key(r)] = law.get(key(r), 0) + r.probability / len(self.trainer.team_names) ** len(order)
            rules.router = router
            return law


def truncate(logps, top_k=0, top_p=1.0, min_p=None, **_):
    """Top-k, top-p and min-p by their definitions."""
    p, order = logps.exp(), logps.argsort(descending=True)
    keep = torch.ones_like(p, dtype=torch.bool)
    if top_k:
        keep[order[top_k:]] = False
    if top_p < 1:
        keep[order[p[order].cumsum(0) - p[order] >= top_p]] = False
    if min_p:
        keep[p < min_p * p.max()] = False
    return logps.masked_fill(~keep, -torch.inf).log_softmax(0)


def key(rollout):
    return tuple((message.agent, message.ids) for message in rollout.messages)


def count(rollouts):
    return collections.Counter(key(transcript) for transcript in rollouts.transcripts)


def p_value(counts, law):
    """Of the chi-square test of so many rollouts of each kind against their law; rare cells are one."""
    total = counts.total()
    assert set(counts) <= set(law), "a rollout of probability 0"
    common = [k for k, p in law.items() if p * total >= 5]
    cells = [(counts[k], law[k] * total) for k in common]
    cells.append((total - sum(c for c, _ in cells), total - sum(e for _, e in cells)))
    statistic = sum((seen - expected) ** 2 / expected for seen, expected in cells if expected > 1e-6)
    return float(chi2.sf(statistic, len(cells) - 1))


CASES = [
    (2, 1, "round_robin", "none", "speculative"),
    (3, 1, "round_robin", "temperature", "speculative"),
    (2, 2, "round_robin", "top_k", "speculative"),
    (2, 2, "random", "none", "speculative"),
    (3, 1, "random", "top_p", "speculative"),
    (3, 2, "text", "none", "speculative"),
    (2, 2, "text", "min_p", "speculative"),
    (3, 1, "round_robin", "none", "suffix"),
    (2, 2, "random", "none", "suffix"),
    (3, 2, "text", "top_k", "suffix"),
]


@pytest.mark.parametrize("agents, rounds, router, transform, mode", CASES)
def test_resampled_rollouts_have_the_law_of_the_updated_team(
    tmp_path, monkeypatch, agents, rounds, router, transform, mode
):
    case, total = Case(tmp_path, agents, rounds, router, transform, mode), 2000
    case.rollouts(total)
    kept = 0
    for number, agent in enumerate((0, agents - 1, 0)):  # the later ones meet drafts of drafts
        case.update(agent, seed=number)
        new, law = case.rollouts(total), case.law(monkeypatch)
        assert p_value(count(new), law) > 0.001 / len(CASES) / 3
        kept += new.tokens_kept
    assert kept > 0
    assert mode == "suffix" or new.tokens_decoded < 0.7 * sum(
        len(message.ids) for transcript in new.transcripts for message in transcript.messages
    )


def accept_more(context):
    def keeping(*arguments):
        keep, running = original(*arguments)
        return keep.sqrt(), running

    original = block_verification.keeping_probabilities
    context.setattr(block_verification, "keeping_probabilities", keeping)


def draw_from_the_new_law(context):
    context.setattr(block_verification, "residual_weights", lambda old, new, running: new.exp())


def forget_the_snapshot(context):
    original = drafts.check_drafts
    context.setattr(drafts, "check_drafts", lambda agent, pairs, snapshot, r: original(agent, pairs, None, r))


WRONG_RULES = (accept_more, draw_from_the_new_law, forget_the_snapshot)


def test_the_test_can_tell(tmp_path, monkeypatch):
    """Stale rollouts, a wrong acceptance rule, a wrong residual and a stale draft law each fail it."""

    def p_value_with(patch, updates=((0, 0),), mode="speculative"):
        torch.manual_seed(0)
        case = Case(tmp_path, 2, 1, "round_robin", "none", mode)
        case.rollouts(8000)
        with monkeypatch.context() as context:
            patch(context)
            for agent, seed in updates:
                case.update(agent, seed, scale=0.6)
                rollouts = case.rollouts(8000)
        return p_value(count(rollouts), case.law(monkeypatch))

    assert p_value_with(lambda context: None) > 1e-3
    for patch in WRONG_RULES:
        assert p_value_with(patch) < 1e-4, patch.__name__
    assert p_value_with(lambda context: None, mode="stale") < 1e-6


def test_unchanged_team_refuses_nothing(tmp_path):
    case = Case(tmp_path, 3, 2, "random", "top_p", "speculative")
    old = case.rollouts(200)
    case.update(1, seed=0, scale=0.0)  # verified, and found as it was
    new = case.rollouts(200)
    assert [key(t) for t in new.transcripts] == [key(t) for t in old.transcripts]
    assert new.tokens_decoded == 0 and new.tokens_scored > 0
    case.trainer.resampler.agent_was_updated(case.trainer.members[0], UpdateReport(inner_steps=2, rejected=True))
    again = case.rollouts(200)
    assert [key(t) for t in again.transcripts] == [key(t) for t in old.transcripts]
    assert again.tokens_decoded == again.tokens_scored == 0


def test_chunks_do_not_change_what_is_kept(tmp_path, monkeypatch):
    found = []
    for size in (2**25, 1):
        torch.manual_seed(0)
        case = Case(tmp_path, 2, 1, "round_robin", "none", "speculative")
        case.rollouts(50)
        case.update(0, seed=0, scale=0.0)
        monkeypatch.setattr(drafts, "LOGITS_PER_CHUNK", size)
        found.append([key(t) for t in case.rollouts(50).transcripts])
    assert found[0] == found[1]
