"""τ²-bench's domains as environments: one database, tools for the assistant, and in telecom for the user too."""

import functools
from typing import Any

from .domain import DOMAINS, Domain, in_store, load_domain
from .methods import as_method, run


class Tau2Environment:
    """
    One task of τ²-bench. An `environment_factory` of TRL is [`airline`], [`retail`] or [`telecom`], which make instances of
    a subclass that has the domain's tools as methods. Its reward, [`~trl_teamtr.tasks.tau2.reward.tau2_reward`], also reads
    what was said.

    A list of calls has the same results each time. What is not a tool is no public method, since TRL offers all of them.

    Attributes:
        domain ([`Domain`]): What it is an environment of.
        assistant_tools, user_tools (`list[str]`): Which methods each party may call: `Agent("assistant", tools=...)`.
        task (`Task`): inspect-evals' task.
        calls (`list[tuple]`): Party, name and arguments of each call so far, failed ones included.
    """

    deterministic = True
    domain: Domain
    assistant_tools: list[str]
    user_tools: list[str]

    def __init__(self):
        self.task: Any = None
        self.calls: list[tuple[str, str, dict[str, Any]]] = []
        self._store: Any = None

    def reset(self, task_id: str, **row) -> None:
        """
        Begin anew.

        Args:
            task_id (`str`): Id of the task.
            row: The other columns of the row, which are not needed.
        """
        from inspect_ai.util import Store

        self.task, self.calls, self._store = self.domain.tasks[task_id], [], Store()
        in_store(self._store, self.domain.fill, self.task)

    def _state(self) -> Any:
        """The state of the database; two environments of one domain are in the same one where these are equal."""
        return in_store(self._store, self.domain.state)

    def _call(self, party: str, name: str, arguments: dict[str, Any]) -> str:
        self.calls.append((party, name, dict(arguments)))
        return in_store(self._store, run, self.domain.tools[party][name], arguments)

    def _holds(self, assertion: Any) -> bool:
        """Whether an assertion of a telecom task is true."""
        from inspect_evals.tau2.telecom.environment import get_environment

        def check() -> bool:
            world = get_environment()
            kit = world.user_tools if assertion.env_type == "user" else world.tools
            return getattr(kit, assertion.func_name)(**assertion.arguments) == assertion.assert_value

        return in_store(self._store, check)


@functools.cache
def environment_class(name: str) -> type[Tau2Environment]:
    """The environment of a domain, with its tools as methods."""
    domain = load_domain(name)
    tools = {tool: (party, function) for party, own in domain.tools.items() for tool, function in own.items()}
    if len(tools) < sum(map(len, domain.tools.values())):
        raise ValueError(f"Two tools of {name!r} have the same name, one the assistant's and one the user's.")
    members: dict[str, Any] = {tool: as_method(function, tool, party) for tool, (party, function) in tools.items()}
    parties = {f"{party}_tools": list(own) for party, own in domain.tools.items()}
    members |= parties | {"domain": domain, "__doc__": Tau2Environment.__doc__, "__module__": __name__}
    return type(f"Tau2{name.capitalize()}", (Tau2Environment,), members)


def airline() -> Tau2Environment:
    """An environment of the airline."""
    return environment_class(DOMAINS[0])()


def retail() -> Tau2Environment:
    """An environment of the shop."""
    return environment_class(DOMAINS[1])()


def telecom() -> Tau2Environment:
    """An environment of the phone company, in which the user has tools too."""
    return environment_class(DOMAINS[2])()
