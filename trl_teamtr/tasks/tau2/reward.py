"""
τ²-bench's scorer: the database at the end, the calls that are asked for, and what the assistant said.

As inspect-evals scores: in airline and retail the database has to be as the reference calls leave it, and all required
information has to be said; in telecom the task's assertions about the two databases have to hold and, where the task is
scored by calls, the reference calls have to be made. What the benchmark leaves to a judge (`nl_assertions`) is not scored.
"""

import functools
from typing import Any

from .environment import Tau2Environment, environment_class


ASSISTANT = "assistant"  # name of the agent whose messages the customer reads


def replay(environment: Tau2Environment) -> None:
    """Make the reference calls of the task. One that fails changes nothing and is passed over, as in the benchmark."""
    from inspect_ai.tool import ToolError

    for action in environment.task.evaluation_criteria.actions or []:
        try:
            environment._call(action.requestor, action.name, action.arguments)
        except ToolError:
            continue


@functools.lru_cache(maxsize=4096)
def expected_state(domain: str, task_id: str) -> Any:
    """The state of the database after the reference calls."""
    environment = environment_class(domain)()
    environment.reset(task_id)
    replay(environment)
    return environment._state()


def said(environment: Tau2Environment, messages: list[dict[str, str]]) -> bool:
    """Whether each required piece of information is in what the assistant said, but for case and commas."""
    text = "\n".join(message["content"] for message in messages if message["name"] == ASSISTANT)
    text = text.lower().replace(",", "")
    return all(each.lower() in text for each in environment.task.evaluation_criteria.communicate_info or [])


def was_called(environment: Tau2Environment, action: Any) -> bool:
    """Whether a reference call was made, as far as the task compares its arguments."""
    from inspect_evals.tau2.utils import deep_equal_unordered

    if action.name == "transfer_to_human_agents":
        compared: list[str] | None = []
    else:
        compared = action.compare_args
    for party, name, arguments in environment.calls:
        keys = set(arguments) | set(action.arguments) if compared is None else compared
        if (party, name) == (action.requestor, action.name) and deep_equal_unordered(
            {key: arguments.get(key) for key in keys}, {key: action.arguments.get(key) for key in keys}
        ):
            return True
    return False


def score(environment: Tau2Environment, messages: list[dict[str, str]]) -> float:
    """
    1 if the task is solved, else 0.

    Args:
        environment ([`Tau2Environment`]): The environment at the end of the rollout.
        messages (`list[dict]`): The transcript, with `name` and `content`.
    """
    criteria = environment.task.evaluation_criteria
    if environment.domain.name != "telecom":
        done = environment._state() == expected_state(environment.domain.name, environment.task.id)
        return float(done and said(environment, messages))
    solved = all(environment._holds(assertion) for assertion in criteria.env_assertions or [])
    if "ACTION" in [basis.value for basis in criteria.reward_basis]:
        solved = solved and all(was_called(environment, action) for action in criteria.actions or [])
    return float(solved)


def tau2_reward(transcripts: list[list[dict[str, str]]], environments: list[Tau2Environment], **kwargs) -> list[float]:
    """[`score`] of each rollout, from its transcript and its environment."""
    return [score(world, messages) for world, messages in zip(environments, transcripts, strict=True)]
