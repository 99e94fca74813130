"""Which agents' tensors are on the device: the moments of one agent and, on request, the weights of one agent."""

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import nn


class MomentsHolder(Protocol):
    """
    Holds an agent's moments: its engine.

    Attributes:
        moments_on_host (`dict[int, torch.Tensor]`): Copies in host memory of those that have not changed since, by `id`.
    """

    moments_on_host: dict[int, torch.Tensor]

    @property
    def optimizer(self) -> torch.optim.Optimizer: ...

    def unlink_moments(self) -> None: ...

    def link_moments(self) -> None: ...


class Resident(Protocol):
    """An agent whose tensors can be moved."""

    name: str

    @property
    def model(self) -> nn.Module: ...

    @property
    def ref_model(self) -> nn.Module | None: ...

    @property
    def is_trained(self) -> bool: ...

    @property
    def engine(self) -> MomentsHolder: ...


class Offloaded:
    """
    Tensors that are moved to CPU memory and back. A tensor keeps its identity and only its data moves, so optimizers
    and modules that hold it are unaffected. Tensors that were on the CPU stay there.
    """

    def __init__(self):
        self._homes: list[tuple[torch.Tensor, torch.device]] = []

    def move_out(self, tensors: Sequence[torch.Tensor]):
        self._homes += [(tensor, tensor.device) for tensor in tensors]
        for tensor, _ in self._homes:
            tensor.data = tensor.data.to("cpu")

    def move_back(self) -> dict[int, torch.Tensor]:
        """Returns what they were in CPU memory, by the `id` of the tensor, if that is another memory."""
        left = {}
        for tensor, home in self._homes:
            on_host = tensor.data
            tensor.data = on_host.to(home)
            if tensor.data_ptr() != on_host.data_ptr():
                left[id(tensor)] = on_host
        self._homes.clear()
        return left


class Residency:
    """
    Moves agents to the device when they train or speak, and the others to CPU memory.

    Only one agent trains at a time, so only its moments are on the device, and none during rollouts. With
    `offload_idle_agents` the same holds for weights and reference models. Weights that agents share stay on the device.

    Args:
        members (`Sequence[Resident]`): The team.
        offload_idle_agents (`bool`): Whether to move weights too.
    """

    def __init__(self, members: Sequence[Resident], offload_idle_agents: bool):
        self._moments = {member.name: Offloaded() for member in members if member.is_trained}
        self._weights = {member.name: Offloaded() for member in members}
        self._members = {member.name: member for member in members}
        self._present: str | None = None  # whose weights are, if only one agent's are
        self._own = _own_tensors(members) if offload_idle_agents else None

    def release(self):
        """Before agents are prepared for training: move everything back to the device, for new optimizers."""
        for offloaded in (*self._moments.values(), *self._weights.values()):
            offloaded.move_back()
        self._present = None

    def start(self):
        """Once all agents are prepared: move everything out until it is needed."""
        if len(self._moments) > 1:
            for name in self._moments:
                self._move_moments_out(name)
        if self._own is not None:
            for name in self._members:
                self._weights[name].move_out(self._own[name])

    @contextlib.contextmanager
    def training(self, member: Resident) -> Iterator[None]:
        """Context in which the agent and its moments are on the device, for its update."""
        self.use(member)
        if len(self._moments) == 1:
            yield
            return
        # The copies that the moments leave behind serve to undo the update
        member.engine.moments_on_host = self._moments[member.name].move_back()
        member.engine.link_moments()
        try:
            yield
        finally:
            member.engine.moments_on_host = {}
            self._move_moments_out(member.name)

    def use(self, member: Resident):
        """Bring the agent's weights to the device, to generate or score messages."""
        if self._own is not None and self._present != member.name:
            if self._present is not None:
                self._weights[self._present].move_out(self._own[self._present])
            self._weights[member.name].move_back()
            self._present = member.name

    def _move_moments_out(self, name: str):
        engine = self._members[name].engine
        engine.unlink_moments()
        values = [value for state in engine.optimizer.state.values() for value in state.values()]
        self._moments[name].move_out([value for value in values if isinstance(value, torch.Tensor)])


def _own_tensors(members: Sequence[Resident]) -> dict[str, list[torch.Tensor]]:
    """For each agent, the weights and buffers that no other agent has."""
    tensors = {member.name: _tensors(member) for member in members}
    holders = Counter(key for own in tensors.values() for key in own)
    return {name: [tensor for key, tensor in own.items() if holders[key] == 1] for name, own in tensors.items()}


def _tensors(member: Resident) -> dict[int, torch.Tensor]:
    models: list[nn.Module] = [model for model in (member.model, member.ref_model) if model is not None]
    return {id(tensor): tensor for model in models for tensor in (*model.parameters(), *model.buffers())}
