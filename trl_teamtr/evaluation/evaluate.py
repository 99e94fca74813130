"""Evaluation of a team and its baselines on one dataset, with the same rewards and the same turn loop."""

import contextlib
import copy
import dataclasses
import math
import os
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from accelerate import Accelerator
from datasets import Dataset

from ..agents.agent import Agent
from ..agents.resolving import default_args, resolve_agents
from ..agents.settings import SpeakingSettings
from ..agents.team_file import find_team, read_speaking_settings, read_team, warn_of_changes
from ..checks.preflight import check_speakers, check_tools, refuse_processors
from ..checks.thoughts import check_thoughts
from ..conversation.router import Router
from ..conversation.rules import TurnTaking
from ..conversation.template_date import agree_on_date
from ..conversation.transcript import Message, Transcript
from ..policy.generation import Fleet, FleetSettings
from ..policy.making import load_members
from ..returns.rewards import check_reward_funcs
from ..returns.scorer import RewardScorer
from ..team import Team
from ..teamtr_config import TeamTRConfig
from .checks import (
    check_dataset,
    check_launch,
    check_players,
    check_prompts,
    reads_transcripts,
)
from .equipment import Equipment
from .evaluation_config import PROTOCOLS, EvaluationConfig
from .panel import Panel, share_prompts
from .protocols import (
    SAMPLED,
    AnswerReader,
    debate_length,
    default_reader,
    seat,
    spread,
    take_turns,
    vote,
    without_english,
)
from .results import Episode, ProtocolResult, summarize


def evaluate_protocols(
    team: str | list[Agent] | None,
    reward_funcs: Any,
    dataset: Dataset,
    args: TeamTRConfig | None = None,
    config: EvaluationConfig | None = None,
    model: Any = None,
    extract_answer: AnswerReader | None = None,
    reward_processing_classes: Any = None,
    quantization_config: Any = None,
    router: Router | None = None,
    stop_condition: Callable[[Transcript], bool] | None = None,
    tools: Sequence[Callable] | None = None,
    environment_factory: Callable | None = None,
) -> dict[str, ProtocolResult]:
    """
    Evaluate a team, and other uses of the same models or of another one, on the same tasks (docs/evaluation.md).

    All processes of a launch call this together. Each generates and scores its share, and all return the whole result.

    Args:
        team (`str` or `list[Agent]`, *optional*): The directory of a saved team, or the agents of one.
        reward_funcs, reward_processing_classes, quantization_config: As in [`TeamTRTrainer`].
        dataset ([`~datasets.Dataset`]): The tasks: `prompt`, `agent_prompts` if any, and what the rewards need.
        args ([`TeamTRConfig`], *optional*): How agents sample; `seed`; `reward_weights`; turn-taking of the team; and
            `per_device_eval_batch_size`, the conversations that a process generates in parallel. Defaults to a saved team's.
        config ([`EvaluationConfig`], *optional*): What to evaluate.
        model (`list[Agent]` or `str` or [`~transformers.PreTrainedModel`], *optional*): Who plays all protocols but
            `"team"`: several agents, or one model for all of them. Defaults to the agents of `team`.
        extract_answer (`Callable[[str, dict], str]`, *optional*): The answer in a message to a row, by which votes are counted;
            empty for no vote. Defaults to how the reward finds it (reasoning-gym, `accuracy_reward`), else to the last line.
        router, stop_condition, tools, environment_factory (*optional*): As in [`TeamTRTrainer`], for the team; of a saved one in
            place of what was saved. Every conversation has an environment of its own.

    Returns:
        `dict[str, ProtocolResult]`, in the order of `PROTOCOLS`.

    Raises:
        `ValueError`, `TypeError` or `FileNotFoundError`: For input that cannot be evaluated, before a model is loaded.
    """
    args, config = _as_saved(args, team), config or EvaluationConfig()
    check_launch(args)
    turns = TurnTaking.of(args)
    own: Any = {"router": router, "stop_condition": stop_condition, "environment_factory": environment_factory}
    if isinstance(team, str):
        (team, own), tools = _open_saved(team, args, config, turns, tools, own), None
    source = None if model is None else resolve_agents(model, None, turns)
    players = spread(source, team, args.num_agents) if source else team or []
    check_players(config, team, players)
    equipment = Equipment.of(team or players, tools, own.pop("environment_factory"), config)
    reward_funcs, args = equipment.add_rewards(reward_funcs, args, config)
    check_dataset(dataset, reward_funcs, equipment.acts)
    check_prompts(config, dataset, team, players)
    config = without_english(config, players, reward_funcs)
    tables = _Tables(dataset, reward_funcs, reward_processing_classes, args, quantization_config, equipment)
    evaluation = _Evaluation(tables, config, extract_answer or default_reader(reward_funcs))
    team, players = tables.load_all(team, players, source, config.protocols)
    return evaluation.run(team, players, turns, **own)


def _open_saved(
    path: str,
    args: TeamTRConfig,
    config: EvaluationConfig,
    turns: TurnTaking,
    tools: Sequence[Callable] | None,
    code: dict[str, Any],
) -> tuple[list[Agent], dict[str, Any]]:
    """The agents of the team in `path`, and its own code where none is given. Warns of what it will do otherwise."""
    saved = read_team(path, tools=tools, trust_remote_code=args.trust_remote_code)
    code = saved.find_code(**code, trusted=args.trust_remote_code or os.path.isdir(path))
    if "team" in config.protocols:
        warn_of_changes(path, turns, SpeakingSettings.of(args))
    return saved.agents, code


def _as_saved(args: TeamTRConfig | None, team: str | list[Agent] | None) -> TeamTRConfig:
    """`args`, by default those of a saved team, with the date that its chat templates printed, unless they have one."""
    if args is None:
        args = default_args(team) if isinstance(team, str) else TeamTRConfig()
    if args.template_date is None and isinstance(team, str):
        args = copy.copy(args)
        args.template_date = read_speaking_settings(find_team(team)).template_date
    return args


class _Tables:
    """
    What all protocols share: the tasks, the rewards, and how models are loaded and sampled from.

    Args:
        dataset ([`~datasets.Dataset`]): The tasks.
        reward_funcs (`list[RewardFunc]`), reward_processing_classes, quantization_config: As in [`evaluate_protocols`].
        args (`TeamTRConfig`): The config.
        equipment ([`Equipment`]): The tools and the environment.
    """

    def __init__(
        self,
        dataset,
        reward_funcs,
        reward_processing_classes,
        args: TeamTRConfig,
        quantization_config,
        equipment: Equipment,
    ):
        self.dataset, self.args, self.equipment = dataset, args, equipment
        self._accelerator = Accelerator(mixed_precision=args.mixed_precision)
        settings = SpeakingSettings.of(args, quantization_config)
        self._settings = dataclasses.replace(settings, template_date=agree_on_date(args.template_date))
        # A reward of whole conversations does not show which message held the right answer
        self.judges_messages = not any(map(reads_transcripts, reward_funcs))
        self._scorer = RewardScorer(
            check_reward_funcs(reward_funcs, args.reward_timeout),
            self._accelerator,
            reward_processing_classes,
            args.reward_weights,
            {"trust_remote_code": args.trust_remote_code, **(self._settings.model_init_kwargs or {})},
            self._settings.chat_template_kwargs,
        )

    def load(self, agents: Sequence[Agent]) -> list[Agent]:
        """`agents` with their models and tokenizers, which all panels share."""
        return load_members(agents, self._settings)

    def load_all(
        self, team: list[Agent] | None, players: list[Agent], source: list[Agent] | None, protocols: Sequence[str]
    ) -> tuple[list[Agent] | None, list[Agent]]:
        """The team, and the players of the other `protocols`: of the models of `source`, if it is given."""
        if team is not None and ("team" in protocols or source is None):
            team = players = self.load(team)
        if source is not None and set(protocols) != {"team"}:
            players = spread(self.load(source), team, self.args.num_agents)
        return team, players

    @contextlib.contextmanager
    def seat(
        self,
        agents: Sequence[Agent],
        turns: TurnTaking,
        router: Router | None = None,
        stop_condition=None,
        tools: Sequence[Callable] = (),
    ) -> Iterator[Panel]:
        """
        Context with a panel of `agents`; raises unless they can read the tasks. With `use_vllm=True` they speak through the
        vLLM servers of the config, which hold their adapters until the end.
        """
        if self.args.use_vllm:  # whole models are those of the servers: none of them changes
            agents = [dataclasses.replace(agent, trainable=False) for agent in agents]
        rules, factory = (turns, router, stop_condition), self.equipment.environment_factory
        team = Team.from_agents(
            agents, self._settings, *rules, self._accelerator, tools=tools, environment_factory=factory
        )
        tasks = {"evaluation": share_prompts(self.dataset, agents)}
        check_tools(team.local_speakers, tasks)
        check_speakers(team.speakers, tasks, team.rules)
        check_thoughts(team.speakers, self._scorer.names)
        if self.args.use_vllm:
            refuse_processors({agent.name: agent.processing_class for agent in agents})
            team.speak_through(Fleet(team.local_speakers, FleetSettings.of(self.args)))
        try:
            yield Panel(team, self.dataset, self._scorer, self.args)
        finally:
            team.close()


class _Evaluation:
    """
    The protocols, one after another.

    Args:
        tables ([`_Tables`]): What they share.
        config (`EvaluationConfig`): What to evaluate.
        read (`AnswerReader`): The answer in a message.
    """

    def __init__(self, tables: _Tables, config: EvaluationConfig, read: AnswerReader):
        self.tables, self.config, self.read = tables, config, read
        self.dataset, self.judges_messages = tables.dataset, tables.judges_messages
        self.tasks = [task for task in range(len(self.dataset)) for _ in range(config.num_samples)]

    def run(
        self,
        team: list[Agent] | None,
        players: Sequence[Agent],
        turns: TurnTaking,
        router: Router | None,
        stop_condition,
    ) -> dict[str, ProtocolResult]:
        """All protocols of the config, `"team"` played by `team`, and the others by `players`."""
        wanted, results, equipment = self.config.protocols, {}, self.tables.equipment
        if team is not None and "team" in wanted:
            with self.tables.seat(team, turns, router, stop_condition, equipment.tools) as panel:
                results["team"] = self._converse("team", panel)
        if set(SAMPLED) & set(wanted):
            one = equipment.seat_one(seat("single", players, self.config))
            functions = equipment.functions if equipment.acts else equipment.tools
            with self.tables.seat(one, *take_turns("single", 1, self.config), tools=functions) as panel:
                results |= self._sample(panel, results.get("team"))
        for protocol in ("debate", "debate_judge", "role_play"):
            if protocol in wanted:
                agents = seat(protocol, players, self.config)
                turns, router = take_turns(protocol, len(agents), self.config)
                with self.tables.seat(agents, turns, router, tools=equipment.tools) as panel:
                    results[protocol] = self._converse(protocol, panel)
        return {protocol: results[protocol] for protocol in PROTOCOLS if protocol in results}

    # Protocols of one conversation per episode

    def _converse(self, protocol: str, panel: Panel) -> ProtocolResult:
        (conversations, rewards), answers = panel.play(self.tasks, protocol), []
        for task, messages in zip(self.tasks, conversations, strict=True):
            length = len(messages)
            if protocol == "debate" and self.judges_messages:
                row = self.dataset[task]
                length = debate_length([self.read(m.text, row) for m in messages], len(panel.team.names))
            answers.append((task, messages[:length]))
        if rewards is None:
            rewards = panel.score(answers)
        earlier = self._score_earlier(protocol, panel, answers)
        found = zip(conversations, answers, rewards, earlier, strict=True)
        episodes = [
            self._episode(i, [conversation], (0, len(answer)), reward, said)
            for i, (conversation, (_, answer), reward, said) in enumerate(found)
        ]
        return self._summarize(protocol, episodes, panel)

    def _score_earlier(
        self, protocol: str, panel: Panel, answers: list[tuple[int, list[Message]]]
    ) -> list[list[float] | None]:
        """Rewards of the messages before each answer (of a debate, before its last round), each as the answer."""
        if not self.judges_messages or panel.acts:
            return [None] * len(answers)
        size = len(panel.team.names) if protocol == "debate" else 1
        counts = [(len(messages) - 1) // size * size if messages else 0 for _, messages in answers]
        before = [
            (task, messages[:i])
            for (task, messages), count in zip(answers, counts, strict=True)
            for i in range(1, count + 1)
        ]
        rewards = iter(panel.score(before))
        return [[next(rewards) for _ in range(count)] for count in counts]

    # Protocols that differ only in how they choose among the same samples of one model

    def _sample(self, panel: Panel, team: ProtocolResult | None) -> dict[str, ProtocolResult]:
        config = self.config
        (first, rewards), size = panel.play(self.tasks, "single"), 1
        if {"best_of_n", "majority"} & set(config.protocols):
            size = config.budget_samples or _samples_for(team, first)
        more, further = panel.play([task for task in self.tasks for _ in range(size - 1)], "more samples")
        pools, results = _beside(first, more, size), {}
        if rewards is not None and further is not None:
            rewards = [reward for pool in _beside(rewards, further, size) for reward in pool]
        else:
            rewards = panel.score(
                [(task, said) for task, pool in zip(self.tasks, pools, strict=True) for said in pool]
            )
        for protocol in SAMPLED:
            if protocol in config.protocols:
                episodes = [
                    self._chosen(protocol, i, pool, rewards[i * size : (i + 1) * size]) for i, pool in enumerate(pools)
                ]
                results[protocol] = self._summarize(protocol, episodes, panel)
        return results

    def _chosen(self, protocol: str, number: int, pool: list[list[Message]], rewards: list[float]) -> Episode:
        """The episode in which `protocol` chooses from `pool`."""
        chosen = 0
        if protocol == "single":
            pool = pool[:1]
        elif protocol == "best_of_n":
            chosen = max(range(len(pool)), key=lambda i: -math.inf if math.isnan(rewards[i]) else rewards[i])
        else:
            row = self.dataset[self.tasks[number]]
            chosen = vote([self.read(messages[-1].text if messages else "", row) for messages in pool])
        return self._episode(number, pool, (chosen, len(pool[chosen])), rewards[chosen], [])

    def _episode(self, number: int, conversations, answer, reward, earlier) -> Episode:
        sample = number % self.config.num_samples
        return Episode(self.tasks[number], sample, conversations, answer, reward, earlier)

    def _summarize(self, protocol: str, episodes: list[Episode], panel: Panel) -> ProtocolResult:
        result = summarize(protocol, episodes, self.dataset, self.config, self.tables.args.seed)
        result.ended_for_length = panel.ended_for_length
        return result


def _beside(first: list, more: list, size: int) -> list[list]:
    """Each of `first` with its `size` - 1 of `more`."""
    return [[each, *more[i * (size - 1) : (i + 1) * (size - 1)]] for i, each in enumerate(first)]


def _samples_for(team: ProtocolResult | None, conversations: list[list[Message]]) -> int:
    """How many of `conversations` have about as many sampled tokens as an episode of the team; at least one."""
    assert team is not None  # `check_players` makes sure
    tokens = [sum(message.num_tokens for message in messages) for messages in conversations]
    return max(1, round(team.tokens / statistics.fmean(tokens)))
