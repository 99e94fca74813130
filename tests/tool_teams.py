"""Teams that act on small worlds: "b." calls the only tool, and the exact distribution of all their rollouts."""

import collections
import copy
import random

import torch
from datasets import Dataset
from scipy.stats import chi2
from tiny import make_team, make_tokenizer, make_trainer, next_logps

from trl_teamtr import Message, Transcript
from trl_teamtr.conversation.transcript import ToolCall, ToolUse
from trl_teamtr.conversation.view import View
from trl_teamtr.rollouts.rollouts import Rollouts
from trl_teamtr.rollouts.stage_weights import ScoredView
from trl_teamtr.trust_region.snapshot import Snapshot
from trl_teamtr.trust_region.update import UpdateReport


# A call is "b", its result stands alone; one letter is a token, and "." ends every turn
TEMPLATE = (
    "{% for m in messages %}{{ m['content'] }}{% for call in m['tool_calls'] or [] %}"
    "{{ 'b' + call['function']['name'] }}{{ call['function']['arguments'] | tojson }}{% endfor %}.{% endfor %}"
)
RESPONSE = {
    "defaults": {"role": "assistant"},
    "start_anchor": ".",
    "fields": {
        "tool_calls": {
            "open": "b",
            "close_pattern": r"\.",
            "repeats": True,
            "content": "text",
            "transform": {"type": "function", "function": {"name": "turn", "arguments": {}}},
        },
        "content": {"close_pattern": r"\.", "content": "text"},
    },
}
PROMPT = [{"role": "user", "content": "a"}]
CALL = (3, 1)  # the ids of "b."


class Untold:
    """Says "a" and "b" in turn, and not how its state is found again."""

    def reset(self, **row):
        self.count = 0

    def turn(self) -> str:
        """Turns the dial."""
        self.count += 1
        return "ab"[self.count % 2]

    @staticmethod
    def _law(results, callers):
        return {"ab"[(len(results) + 1) % 2]: 1.0}


class Dial(Untold):
    """The same calls have the same results."""

    deterministic = True


class Scored(Dial):
    """Right if it was turned once."""

    def get_reward(self):
        return float(self.count == 1)


class Saved(Untold):
    """Its state can be kept."""

    def snapshot(self):
        return self.count

    def restore(self, state):
        self.count = state


class Lots:
    """Says "a" or "b" at random, and mostly again what it said last."""

    deterministic = False

    def reset(self, **row):
        self.last = None

    def turn(self) -> str:
        """Draws a lot."""
        weights = self._law([] if self.last is None else [self.last], [])
        self.last = random.choices(list(weights), list(weights.values()))[0]
        return self.last

    @staticmethod
    def _law(results, callers):
        return {"a": 0.3, "b": 0.7} if not results else {results[-1]: 0.9, "ab"[results[-1] == "a"]: 0.1}


class Sums:
    """The first agent adds one, and the second doubles: it depends on the order of their calls."""

    deterministic = True

    def reset(self, **row):
        self.total = 0

    def turn(self) -> str:
        """Adds one."""
        self.total += 1
        return self._say(self.total)

    def press(self) -> str:
        """Doubles."""
        self.total *= 2
        return self._say(self.total)

    @staticmethod
    def _say(total):
        return "aba"[total % 3]

    @classmethod
    def _law(cls, results, callers):
        total = 0
        for caller in callers:
            total = total + 1 if caller == "x" else 2 * total
        return {cls._say(total): 1.0}


def tool_tokenizer(tool="turn"):
    """Of four letters, with a template for calls of one tool."""
    tokenizer = make_tokenizer(4)
    tokenizer.chat_template, tokenizer.response_template = TEMPLATE, copy.deepcopy(RESPONSE)
    tokenizer.response_template["fields"]["tool_calls"]["transform"]["function"]["name"] = tool
    return tokenizer


def ordered_team():
    """For [`Sums`]."""
    team = tool_team()
    team[0].tools, team[1].tools, team[1].processing_class = ["turn"], ["press"], tool_tokenizer("press")
    return team


def tool_team(num_agents=2, seed=22, **fields):
    """A team whose agents call the tool in a good part of their messages."""
    team, tokenizer = make_team(num_agents, 4, seed, **fields), tool_tokenizer()
    for agent in team:
        agent.processing_class = tokenizer
        _incline(agent.model, [2, 1], CALL[0], 3.0)
        _incline(agent.model, [2, 1, CALL[0]], CALL[1], 3.0)
    return team


@torch.no_grad()
def _incline(model, context, token, by):
    """Raise the logit of `token` after `context`, and so in contexts like it."""
    state = model.model(torch.tensor([context])).last_hidden_state[0, -1]
    model.lm_head.weight[token] += by * state / state.square().sum()


class ToolCase:
    """A team on a world that is resampled after updates which know nothing of its rollouts."""

    def __init__(self, folder, world, mode, team=None, max_uses=1, **own):
        self.world, self.max_uses = world, max_uses
        self.trainer = make_trainer(
            folder,
            tool_team() if team is None else team,
            dataset=Dataset.from_dict({"prompt": [PROMPT] * 8}),
            resampling=mode,
            kl_estimator="exact",
            max_tool_calling_iterations=max_uses,
            max_tool_result_length=1,
            environment_factory=world,
            **own,
        )

    def rollouts(self, total):
        return self.trainer.resampler.rollouts([{"prompt": PROMPT}] * total)

    def update(self, number, seed, scale=0.3, known=False):
        """Move the weights of an agent at random; if `known`, the log-ratios of its messages are."""
        agent, resampler = self.trainer.members[number], self.trainer.resampler
        before = Snapshot(agent.engine, with_optimizer=False)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in agent.model.parameters():
                parameter += scale * torch.randn(parameter.shape, generator=generator)
        report = UpdateReport(inner_steps=1)
        if known:
            report.log_ratios = ScoredView(agent.speaker, resampler.stage.rollouts, before, 512).log_ratios
        resampler.agent_was_updated(agent.speaker, report, before if resampler.needs_snapshot else None)

    def law(self):
        """Probability of each rollout of the present team, by [`key`]."""
        law = collections.Counter()
        for transcript, p in self.all_rollouts():
            law[key(transcript)] += p
        return law

    def all_rollouts(self):
        """Every rollout of the present team, and its probability."""
        cache, done, open_ = {}, [], [(Transcript(PROMPT, self.trainer.team.names), 1.0)]
        while open_:
            transcript, p = open_.pop()
            name = self.trainer.team.rules.next_speaker(transcript)
            if name is None:
                done.append((transcript, p))
                continue
            for message, q in self._messages(name, transcript, cache):
                longer = copy.copy(transcript)
                longer.messages = [*transcript.messages, message]
                open_.append((longer, p * q))
        return done

    def _messages(self, name, transcript, cache):
        """Every message of an agent, with its probability: segments of at most two tokens, and results between them."""
        (member,) = [member for member in self.trainer.members if member.name == name]
        results = [r for message in transcript.messages for use in message.tool_uses for r in use.results]
        callers = [message.agent for message in transcript.messages for _ in message.tool_uses]
        done, open_ = [], [((), (), 1.0)]  # ids, uses, probability
        while open_:
            ids, uses, p = open_.pop()
            context = context_of(member.speaker, transcript, ids, uses)
            for segment, q in segments(member.model, context, cache):
                longer = (*ids, *segment)
                if segment == CALL and len(uses) < self.max_uses:
                    seen = [*results, *(r for use in uses for r in use.results)]
                    for result, chance in self.world._law(seen, [*callers, *[name] * (len(uses) + 1)]).items():
                        use = ToolUse(len(longer), (ToolCall("turn"),), (result,), (False,))
                        open_.append((longer, (*uses, use), p * q * chance))
                else:
                    # What the others read: what stands before a call
                    text = "".join("u.ab"[i] for i in segment).rstrip(".").partition("b")[0]
                    done.append((Message(name, text, longer, tool_uses=uses), p * q))
        return done


def context_of(speaker, transcript, ids, uses):
    """What an agent reads before a segment, by replaying what it has written."""
    rollouts = Rollouts([], {speaker.name: [View()]})
    others = copy.copy(transcript)
    others.messages = []
    rollouts.transcripts = [others]
    for message in transcript.messages:
        if message.agent == speaker.name:
            assert rollouts.read(speaker, 0)
            rollouts.write(speaker, 0, message)
        else:
            others.messages.append(message)
    assert rollouts.read(speaker, 0)
    view = rollouts.views[speaker.name][0]
    edges = [0, *(use.after for use in uses)]
    for number, use in enumerate(uses):
        segment = ids[edges[number] : edges[number + 1]]
        view.write(segment, goes_on=number > 0)
        view.hear(*speaker.results_for(PROMPT).encode(["turn"], use.results, segment))
    return view.context


def segments(model, context, cache):
    """Every segment of at most two tokens, with its probability."""
    found = cache.get((id(model), tuple(context)))
    if found is None:
        found = []
        for i, lp in enumerate(next_logps(model, context).tolist()):
            if i == 1:
                found.append(((i,), lp))
            else:
                found += [((i, j), lp + lp2) for j, lp2 in enumerate(next_logps(model, [*context, i]).tolist())]
        found = cache[id(model), tuple(context)] = [(ids, torch.tensor(lp).exp().item()) for ids, lp in found]
    return found


def key(transcript):
    return tuple((m.agent, m.ids, tuple(use.results for use in m.tool_uses)) for m in transcript.messages)


def results_of(rollout):
    """Of a [`key`], the results alone."""
    return tuple(results for _, _, results in rollout)


def p_value(transcripts, law, of=lambda rollout: rollout):
    """Of a chi-square test of what is looked at `of` rollouts against its law."""
    total, counts = len(transcripts), collections.Counter(of(key(transcript)) for transcript in transcripts)
    assert abs(sum(law.values()) - 1) < 1e-5
    expected = collections.Counter()
    for each, p in law.items():
        expected[of(each)] += p * total
    assert set(counts) <= set(expected)
    common = [each for each, wanted in expected.items() if wanted >= 5]
    statistic = sum((counts[each] - expected[each]) ** 2 / expected[each] for each in common)
    rest = total - sum(expected[each] for each in common)
    if rest > 1e-6:
        statistic += (total - sum(counts[each] for each in common) - rest) ** 2 / rest
    return chi2.sf(statistic, len(common) - (rest <= 1e-6))
