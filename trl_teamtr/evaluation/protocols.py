"""The protocols: which agents take part, who speaks when, and which message is the answer."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from trl.rewards import accuracy_reward

from ..agents.agent import Agent
from ..conversation.router import Router
from ..conversation.rules import TurnTaking
from ..conversation.transcript import Transcript
from ..tasks.catalogue import answer_reader
from ..tasks.link import link_reward
from ..tasks.reasoning_gym import extract_answer, reasoning_gym_reward
from .evaluation_config import DEBATE_PROMPT, JUDGE_PROMPT, EvaluationConfig


SAMPLED = ("single", "best_of_n", "majority")  # uses of the same samples of one model
DEBATES = ("debate", "debate_judge")
JUDGE = "judge"
ROLES = (
    "You plan. Say in short steps how to solve the task.",
    "You solve. Follow the plan and give an answer.",
    "You check. Mend what is wrong and give the final answer.",
)

# The answer in a message to a row of the dataset, by which votes are counted
AnswerReader = Callable[[str, dict[str, Any]], str]


def last_line(text: str, row: dict[str, Any]) -> str:
    """The last line of a message, stripped."""
    return (text.strip().splitlines() or [""])[-1].strip()


def reasoning_gym_answer(text: str, row: dict[str, Any]) -> str:
    """The answer as the reward of reasoning-gym extracts it."""
    return extract_answer(text, row["answer"])


def math_answer(text: str, row: dict[str, Any]) -> str:
    """The answer as math-verify extracts it, which TRL's `accuracy_reward` uses; empty if there is none."""
    from math_verify import parse  # not installed with this package

    found = parse(text, extraction_mode="first_match", parsing_timeout=None)
    return str(found[0]) if found else ""


def default_reader(reward_funcs: Sequence) -> AnswerReader:
    """The function that extracts the answer from a message which `reward_funcs` score."""
    if reasoning_gym_reward in reward_funcs:
        return reasoning_gym_answer
    if reader := answer_reader(reward_funcs):
        return reader
    return math_answer if accuracy_reward in reward_funcs else last_line


def vote(answers: Sequence[str]) -> int:
    """
    Position of the first of `answers` that is the most frequent one; ties go to the first. An empty answer is no vote,
    unless all are empty.
    """
    votes = [answer for answer in answers if answer] or answers
    return answers.index(Counter(votes).most_common(1)[0][0])


def spread(agents: Sequence[Agent], team: Sequence[Agent] | None, num_agents: int | None) -> list[Agent]:
    """
    The players of all protocols but `"team"`: `agents`, or one agent repeated for each player.

    Args:
        agents (`list[Agent]`): Several agents, which are returned, or one, which plays all.
        team (`list[Agent]`, *optional*): The team that is evaluated. The one agent takes its names, its system prompts
            and, where it has none of its own, its sampling settings.
        num_agents (`int`, *optional*): Number of players, if there is no team.
    """
    if len(agents) > 1:
        return list(agents)
    if team is not None:
        (one,) = agents
        return [_take_place(one, member) for member in team]
    if num_agents is None or num_agents == 1:
        return list(agents)
    return [dataclasses.replace(agents[0], name=f"agent_{i + 1}") for i in range(num_agents)]


def _take_place(one: Agent, member: Agent) -> Agent:
    """`one` under the name and the system prompt of `member`, with its settings where it has none and they are of its kind."""
    own: dict[str, Any] = {"name": member.name, "system_prompt": member.system_prompt}
    if one.is_remote or member.is_remote:  # the settings of one are those of an API
        return dataclasses.replace(one, **own)
    return dataclasses.replace(
        one,
        **own,
        generation_kwargs=one.generation_kwargs or member.generation_kwargs,
        chat_template_kwargs=one.chat_template_kwargs or member.chat_template_kwargs,
    )


def seat(protocol: str, agents: Sequence[Agent], config: EvaluationConfig) -> list[Agent]:
    """The agents of a protocol other than `"team"`: `agents`, in its number and with its system prompts."""
    if protocol in SAMPLED:
        return [dataclasses.replace(agents[-1], system_prompt=config.single_prompt)]
    if protocol in DEBATES:
        judge = dataclasses.replace(agents[-1], name=JUDGE, system_prompt=config.judge_prompt)
        debaters = [dataclasses.replace(agent, system_prompt=config.debate_prompt) for agent in agents]
        return debaters + [judge] * (protocol == "debate_judge")
    roles = config.role_prompts or [a.system_prompt or ROLES[i % len(ROLES)] for i, a in enumerate(agents)]
    return [dataclasses.replace(agent, system_prompt=role) for agent, role in zip(agents, roles, strict=True)]


def without_english(config: EvaluationConfig, agents: Sequence[Agent], reward_funcs: Sequence) -> EvaluationConfig:
    """`config` for `agents`, without default prompts for LINK, whose agents know digits and letters only."""
    if link_reward not in reward_funcs:
        return config
    return dataclasses.replace(
        config,
        debate_prompt=None if config.debate_prompt == DEBATE_PROMPT else config.debate_prompt,
        judge_prompt=None if config.judge_prompt == JUDGE_PROMPT else config.judge_prompt,
        role_prompts=config.role_prompts or [agent.system_prompt or "" for agent in agents],
    )


def take_turns(protocol: str, num_agents: int, config: EvaluationConfig) -> tuple[TurnTaking, Router | None]:
    """
    The turn-taking of a protocol other than `"team"`, which has its own.

    Args:
        protocol (`str`): The protocol.
        num_agents (`int`): Number of agents, a judge included.
        config (`EvaluationConfig`): For the number of rounds of a debate.
    """
    if protocol == "debate":
        return TurnTaking(num_rounds=config.debate_rounds), None
    if protocol != "debate_judge":
        return TurnTaking(), None
    last = config.debate_rounds * (num_agents - 1)

    def router(transcript: Transcript) -> str:
        turn = len(transcript.messages)
        return transcript.agents[turn % (num_agents - 1)] if turn < last else JUDGE

    return TurnTaking(max_turns=last + 1), router


def debate_length(answers: Sequence[str], num_agents: int) -> int:
    """
    Number of messages of a debate up to its answer, which is the first message of the last round that gives the most
    frequent answer of that round.

    Args:
        answers (`list[str]`): The answer in each message of the debate; none if nobody spoke.
        num_agents (`int`): Number of debaters.
    """
    before = max(0, len(answers) - num_agents)
    return before + vote(answers[before:]) + 1 if answers else 0
