"""
Whole stages of teams whose rollouts can all be listed, as tables: exact returns, surrogates and KLs by plain sums.

A team is a list of tables, one per turn: row c holds the log-probabilities of the messages in the c-th context. Contexts
are numbered in base A, A being the number of messages, so that the rollouts are numbered in the same way.
"""

from dataclasses import dataclass
from itertools import product

import torch
from scipy.stats import chi2
from tiny import PROMPTS, context_of, make_model

from trl_teamtr import Message


NOBODY = -1  # speaks where nature draws: the prompt


@dataclass
class Stage:
    """
    The teams of one stage: before any update, and after each.

    Args:
        speakers (`list[int]`): Who speaks at each turn, or `NOBODY`.
        order (`list[int]`): Who is updated, in order.
        teams (`list[torch.Tensor]`): For each team the log-probability of every message of every rollout, float64 of
            shape `(rollouts, turns)`. Team i + 1 differs from team i at the turns of `order[i]`.
        returns (`torch.Tensor` of shape `(rollouts,)`): In [0, 1].
    """

    speakers: list[int]
    order: list[int]
    teams: list[torch.Tensor]
    returns: torch.Tensor

    @property
    def updates(self) -> range:
        return range(len(self.order))

    def turns(self, update: int) -> list[int]:
        """The turns of the agent that `update` changes."""
        return [turn for turn, speaker in enumerate(self.speakers) if speaker == self.order[update]]

    def law(self, team: int) -> torch.Tensor:
        """Probability of each rollout."""
        return self.teams[team].sum(dim=1).exp()

    def value(self, team: int) -> torch.Tensor:
        """Mean return."""
        return self.law(team) @ self.returns

    def gain(self, update: int) -> torch.Tensor:
        """What the update does to the mean return."""
        return self.value(update + 1) - self.value(update)

    def ratios(self, update: int) -> torch.Tensor:
        """New over old probability of each message, `(rollouts, turns)`."""
        return (self.teams[update + 1] - self.teams[update]).exp()

    def surrogate(self, update: int, team: int) -> torch.Tensor:
        """The surrogate of `update` on rollouts of `team`: its own for fresh ones, 0 for stale ones."""
        return self.law(team) @ ((self.ratios(update) - 1).sum(dim=1) * self.returns)

    def kl(self, old: int, new: int, team: int) -> list[float]:
        """KL of the messages of team `old` from those of `new` at each turn, over the contexts of rollouts of `team`."""
        return (self.law(team) @ (self.teams[old] - self.teams[new])).clamp(min=0).tolist()

    def own_kl(self, update: int) -> list[float]:
        """KL of the update at each of the agent's own turns, on fresh rollouts."""
        kl = self.kl(update, update + 1, team=update)
        return [kl[turn] for turn in self.turns(update)]

    def context_law(self, team: int, turn: int) -> torch.Tensor:
        """Probability of each context before `turn`."""
        return self.law(team).view(self._num_contexts(turn), -1).sum(dim=1)

    def given_context(self, team: int, turn: int, values: torch.Tensor) -> torch.Tensor:
        """Mean of a value of each rollout in each context before `turn`, `(contexts,)`."""
        weighted = (self.law(team) * values).view(self._num_contexts(turn), -1).sum(dim=1)
        return weighted / self.context_law(team, turn)

    def moved(self, update: int) -> torch.Tensor:
        """Mean total variation of the messages at each turn, over the contexts of fresh rollouts, `(turns,)`."""
        return self.law(update) @ (self.ratios(update) - 1).abs() / 2

    def values(self, team: int) -> torch.Tensor:
        """Mean return of what can follow, `(rollouts, turns + 1)`: column t given the first t messages of a rollout."""
        columns = []
        for turn in range(len(self.speakers) + 1):
            law, returns = (x.view(self._num_contexts(turn), -1) for x in (self.law(team), self.returns))
            value = (law * returns).sum(dim=1) / law.sum(dim=1)
            columns.append(value.repeat_interleave(law.size(1)))
        return torch.stack(columns, dim=1)

    def _num_contexts(self, turn: int) -> int:
        return round(len(self.returns) ** (turn / len(self.speakers)))


def log_laws(tables: list[torch.Tensor]) -> torch.Tensor:
    """The log-probability of every message of every rollout, from the tables of a team."""
    rollouts = tables[-1].numel()
    columns = [table.log_softmax(dim=1).flatten() for table in tables]
    return torch.stack([column.repeat_interleave(rollouts // len(column)) for column in columns], dim=1)


def tabular_stage(agents: int, rounds: int, size: int, seed: int, chance: bool = False) -> Stage:
    """
    Random policies over `size` messages that differ in each context, random updates of random size and order.

    With `chance`, there are `size` prompts, and a third of the contexts of each later turn have no such turn, because the
    rollout has ended or a router has passed the speaker over: no update changes what is drawn there.
    """
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    speakers = [NOBODY] * chance + list(range(agents)) * rounds
    sharpness, step = 2 * torch.rand(1, generator=generator), 10 ** (2 * torch.rand(1, generator=generator) - 1.5)
    tables = [sharpness * randn(size**turn, size) for turn in range(len(speakers))]
    there = [(torch.arange(len(table)) % 3 != 1) | (not chance) for table in tables]
    teams, order = [log_laws(tables)], torch.randperm(agents, generator=generator).tolist()
    for agent in order:
        own = [is_there[:, None] * (speaker == agent) for is_there, speaker in zip(there, speakers, strict=True)]
        tables = [t + step * randn(*t.shape) * mine if mine.any() else t for t, mine in zip(tables, own, strict=True)]
        teams.append(log_laws(tables))
    returns = torch.rand(size ** len(speakers), generator=generator, dtype=torch.float64)
    # Half of the stages have rewards of 0 or 1, whose advantages are larger
    return Stage(speakers, order, teams, returns.round() if seed % 2 else returns)


def all_messages(tokenizer, name: str) -> list[Message]:
    """Every message of at most two tokens."""
    eos, rest = tokenizer.eos_token_id, [i for i in range(len(tokenizer)) if i != tokenizer.eos_token_id]
    found = [(eos,)] + [(i, j) for i in rest for j in range(len(tokenizer))]
    return [Message(name, tokenizer.decode(ids, skip_special_tokens=True), ids, ids[-1] == eos) for ids in found]


def all_contexts(trainer, prompt: str, turn: int) -> list[list[int]]:
    """What the speaker of `turn` reads, for each row of its table."""
    names, tokenizer = trainer.team.names, trainer._tokenizer
    choices = [all_messages(tokenizer, names[t % len(names)]) for t in range(turn)]
    return [context_of(trainer, prompt, names[turn % len(names)], list(said)) for said in product(*choices)]


@torch.no_grad()
def model_table(model, contexts: list[list[int]], messages: list[Message]) -> torch.Tensor:
    """The table of a model: log-probabilities of `messages` in each context. One forward pass per length."""
    firsts = sorted({message.ids[0] for message in messages if len(message.ids) == 2})
    sequences = {tuple(ids) for context in contexts for ids in [context, *([*context, i] for i in firsts)]}
    logps = {}
    for length in {len(ids) for ids in sequences}:
        batch = [ids for ids in sequences if len(ids) == length]
        found = model(torch.tensor(batch)).logits[:, -1].double().log_softmax(dim=-1)
        logps |= dict(zip(batch, found, strict=True))

    def logp(context: tuple[int, ...], ids: tuple[int, ...]) -> torch.Tensor:
        return sum(logps[(*context, *ids[:i])][token] for i, token in enumerate(ids))

    return torch.stack([torch.stack([logp(tuple(context), m.ids) for m in messages]) for context in contexts])


class ModelStages:
    """
    Stages of real models: random weights, moved in random directions.

    Args:
        trainer (`TeamTRTrainer`): A round-robin team of Qwen3 models. Its weights are overwritten.
        size (`int`): Its number of tokens.
        rounds (`int`): Turns of each agent.
    """

    def __init__(self, trainer, size: int, rounds: int):
        self.trainer, self.size = trainer, size
        self.agents, self.models = len(trainer.members), [member.model for member in trainer.members]
        self.speakers = list(range(self.agents)) * rounds
        self.messages = all_messages(trainer._tokenizer, "")
        self.contexts = {
            prompt: [all_contexts(trainer, prompt, turn) for turn in range(len(self.speakers))]
            for prompt in PROMPTS[:3]
        }

    def draw(self, seed: int) -> Stage:
        """A stage in which every agent is updated once, in random order, by steps of random size."""
        generator, prompt = torch.Generator().manual_seed(seed), PROMPTS[seed % 3]
        for k, model in enumerate(self.models):
            model.load_state_dict(make_model(self.size, seed * self.agents + k).state_dict())
        order = torch.randperm(self.agents, generator=generator).tolist()
        step = 10 ** (1.5 * torch.rand(1, generator=generator) - 2)
        tables = [self._table(prompt, turn) for turn in range(len(self.speakers))]
        teams = [log_laws(tables)]
        for agent in order:
            with torch.no_grad():
                for parameter in self.models[agent].parameters():
                    parameter += step * torch.randn(parameter.shape, generator=generator)
            own = [speaker == agent for speaker in self.speakers]
            tables = [self._table(prompt, turn) if mine else tables[turn] for turn, mine in enumerate(own)]
            teams.append(log_laws(tables))
        returns = torch.rand(len(teams[0]), generator=generator, dtype=torch.float64)
        return Stage(self.speakers, order, teams, returns)

    def _table(self, prompt: str, turn: int) -> torch.Tensor:
        return model_table(self.models[self.speakers[turn]], self.contexts[prompt][turn], self.messages)


def chi_square_p_value(counts: dict, rollouts, total: int, key) -> float:
    expected = {key(r): 0.0 for r in rollouts}
    for rollout in rollouts:
        expected[key(rollout)] += rollout.probability * total
    assert set(counts) <= set(expected), "a rollout was sampled that has probability 0"
    large = {k: e for k, e in expected.items() if e >= 5}
    cells = [(counts.get(k, 0), e) for k, e in large.items()]
    cells.append((total - sum(c for c, _ in cells), total - sum(large.values())))
    statistic = sum((c - e) ** 2 / e for c, e in cells if e > 0)
    return float(chi2.sf(statistic, len(cells) - 1))
