"""Teams that are resampled after updates, the exact distribution of their rollouts, and resampling gone wrong."""

import collections
import itertools

import tiny
import torch
from scipy.stats import chi2
from tiny import enumerate_rollouts, make_team, make_trainer

from trl_teamtr.maths import block_verification
from trl_teamtr.rollouts import drafts, verification
from trl_teamtr.rollouts.stage_weights import ScoredView
from trl_teamtr.trust_region.snapshot import Snapshot
from trl_teamtr.trust_region.update import UpdateReport


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

    def __init__(self, folder, agents, rounds, router, transform, mode, team=None, **own):
        fields = {"router": follow_the_text} if router == "text" else {"router_kind": router}
        self.transform = TRANSFORMS[transform]
        self.router = router
        self.trainer = make_trainer(
            folder,
            make_team(agents) if team is None else team,
            num_rounds=rounds,
            max_turns=min(4, agents * rounds),  # of three agents in two rounds only one speaks twice
            resampling=mode,
            kl_estimator="exact",
            allow_silent_agents=True,
            **self.transform,
            **fields,
            **own,
        )

    def rollouts(self, total):
        return self.trainer.resampler.rollouts([{"prompt": PROMPT}] * total)

    def update(self, number, seed, scale=0.15, known=False):
        """
        Move the weights of an agent at random.

        Args:
            known (`bool`): Whether the log-ratios of its messages are, as after an update that measured its KL by k3.
        """
        agent, generator = self.trainer.members[number], torch.Generator().manual_seed(seed)
        before = Snapshot(agent.engine, with_optimizer=False)
        with torch.no_grad():
            for param in agent.model.parameters():
                param += scale * torch.randn(param.shape, generator=generator)
        resampler, report = self.trainer.resampler, UpdateReport(inner_steps=1)
        if known:
            report.log_ratios = ScoredView(agent.speaker, resampler.stage.rollouts, before, 1000).log_ratios
        resampler.agent_was_updated(agent.speaker, report, before)

    def law(self, monkeypatch):
        """The exact probability of every rollout of the present team."""
        original = tiny.next_logps

        def transformed(model, context):
            return truncate(original(model, context, self.transform.get("temperature", 1.0)), **self.transform)

        with monkeypatch.context() as patch:
            patch.setattr(tiny, "next_logps", transformed)
            if self.router != "random":
                return {key(r): r.probability for r in enumerate_rollouts(self.trainer, PROMPT) if r.probability > 0}
            law, cache, rules, router = {}, {}, self.trainer.team.rules, self.trainer.team.rules.router
            for order in itertools.product(self.trainer.team.names, repeat=rules.max_turns):
                rules.router = lambda transcript, order=order: order[len(transcript.messages)]
                for r in enumerate_rollouts(self.trainer, PROMPT, cache):
                    law[key(r)] = law.get(key(r), 0) + r.probability / len(self.trainer.team.names) ** len(order)
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
    context.setattr(drafts, "check_drafts", lambda speaker, found, snapshot: original(speaker, found, None))


def decide_twice(context):
    """A draft that was not kept whole is asked again."""
    original = block_verification.verify
    context.setattr(verification, "verify", lambda *arguments: original(*arguments[:5]))


WRONG_RULES = (accept_more, draw_from_the_new_law, forget_the_snapshot)
