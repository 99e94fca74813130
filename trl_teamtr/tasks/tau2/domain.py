"""
What inspect-evals has of a domain: tools, policy, tasks and database.

Its tools find the database in inspect's store of the sample. Here each rollout has a store of its own, in which tools are
called: [`in_store`].
"""

import contextvars
import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from .tables import changes, share


DOMAINS = ("airline", "retail", "telecom")
T = TypeVar("T")


@dataclass(frozen=True)
class Domain:
    """
    Args:
        name (`str`): One of `DOMAINS`.
        tools (`dict[str, dict[str, Callable]]`): Coroutine functions by party (`"assistant"`, `"user"`) and name.
        policy (`str`): What the assistant has to keep to.
        guidelines (`str`): How a simulated user behaves.
        tasks (`dict[str, Task]`): inspect-evals' tasks, by id.
        splits (`dict[str, list[str]]`): Ids of tasks.
        fill (`Callable`): Puts the database before a task into the store of the present context.
        state (`Callable`): The state in the store of the present context, to compare.
    """

    name: str
    tools: dict[str, dict[str, Callable[..., Any]]]
    policy: str
    guidelines: str
    tasks: dict[str, Any]
    splits: dict[str, list[str]]
    fill: Callable[[Any], None]
    state: Callable[[], Any]


@functools.cache
def load_domain(name: str) -> Domain:
    """
    A domain by its name. The first call imports inspect-evals, and takes some seconds.

    Raises:
        `ValueError`: If there is no such domain.
        `ImportError`: If inspect-evals is not installed.
    """
    if name not in DOMAINS:
        raise ValueError(f"There is no domain {name!r} of τ²-bench here. Choose one of {', '.join(DOMAINS)}.")
    try:
        import inspect_evals.tau2  # noqa: F401
    except ModuleNotFoundError as error:
        raise ImportError("τ²-bench's domains need inspect-evals: pip install 'trl-teamtr[tau]'.") from error
    return _load_telecom() if name == "telecom" else _load_shop(name)


def in_store(store: Any, function: Callable[..., T], *args) -> T:
    """Call a function in a context in which `store` is inspect's present store; nothing of it is left in this one."""
    from inspect_ai.util._store import init_subtask_store

    def call() -> T:
        init_subtask_store(store)
        return function(*args)

    return contextvars.copy_context().run(call)


def _load_shop(name: str) -> Domain:
    """Airline or retail: the assistant alone has tools, on one large database."""
    from inspect_ai.util import store_as
    from inspect_evals.tau2.utils import TAU2_DATA_DIR, USER_SIMULATOR_GUIDELINES

    kit: type[Any]
    if name == "airline":
        from inspect_evals.tau2.airline.agents import get_domain_policy
        from inspect_evals.tau2.airline.AirlineAgentTools import AirlineAgentTools
        from inspect_evals.tau2.airline.data_model import FlightDB as database
        from inspect_evals.tau2.airline.tools import all_airline_tools as tools

        kit, instance = AirlineAgentTools, "AirlineTools"
    else:
        from inspect_evals.tau2.retail.agents import get_domain_policy
        from inspect_evals.tau2.retail.data_model import RetailDB as database
        from inspect_evals.tau2.retail.RetailAgentTools import RetailAgentTools
        from inspect_evals.tau2.retail.tools import all_retail_tools as tools

        kit, instance = RetailAgentTools, "RetailTools"
    base = database.load(str(TAU2_DATA_DIR / "domains" / name / "db.json.gz"))

    def fill(task: Any):
        own = store_as(kit, instance)
        own.initialized = True
        own.db = share(base)

    def state() -> Any:
        return changes(store_as(kit, instance).db, base)

    return _make(name, {"assistant": tools, "user": []}, get_domain_policy(), USER_SIMULATOR_GUIDELINES, fill, state)


def _load_telecom() -> Domain:
    """Telecom: the assistant has tools on the provider's database, the user on the phone."""
    from inspect_evals.tau2.telecom.agents import get_domain_policy
    from inspect_evals.tau2.telecom.environment import get_environment
    from inspect_evals.tau2.telecom.solver import perform_action
    from inspect_evals.tau2.telecom.tools import all_telecom_agent_tools
    from inspect_evals.tau2.telecom.user_tools import all_telecom_user_tools
    from inspect_evals.tau2.utils import USER_SIMULATOR_GUIDELINES_WITH_TOOLS

    def fill(task: Any):
        world = get_environment()
        for action in task.initial_state.initialization_actions or []:
            perform_action(world, action)

    def state() -> Any:
        world = get_environment()
        return world.tools.db.get_hash(), world.user_tools.db.get_hash()

    tools = {"assistant": all_telecom_agent_tools, "user": all_telecom_user_tools}
    policy = get_domain_policy(workflow=False)
    return _make("telecom", tools, policy, USER_SIMULATOR_GUIDELINES_WITH_TOOLS, fill, state)


def _make(
    name: str,
    tools: dict[str, list],
    policy: str,
    guidelines: str,
    fill: Callable[[Any], None],
    state: Callable[[], Any],
) -> Domain:
    from inspect_evals.tau2.data_model.tasks import Task
    from inspect_evals.tau2.utils import TAU2_DATA_DIR, load_file

    folder = TAU2_DATA_DIR / "domains" / name
    file = "tasks.json.gz" if name == "telecom" else "tasks.json"
    tasks = [Task.model_validate(task) for task in load_file(folder / file)]
    return Domain(
        name=name,
        tools={party: {make.__name__: make() for make in makers} for party, makers in tools.items()},
        policy=policy,
        guidelines=guidelines,
        tasks={task.id: task for task in tasks},
        splits=json.loads((folder / "split_tasks.json").read_text(encoding="utf-8")),
        fill=fill,
        state=state,
    )
