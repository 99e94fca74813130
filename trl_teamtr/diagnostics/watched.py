"""What diagnostics need from the training that they measure."""

from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from ..conversation.transcript import Transcript
from ..policy.speaker import Speaker
from ..team import Team
from ..trust_region.engines import PlainEngine, ZeroEngine
from ..trust_region.snapshot import Snapshot
from ..trust_region.update import UpdateReport


class Member(Protocol):
    """An agent in training."""

    name: str
    args: Any
    radius: float | None
    kl_estimator: str
    num_generations: int
    epsilon_low: float
    epsilon_high: float

    @property
    def speaker(self) -> Speaker: ...

    @property
    def engine(self) -> PlainEngine | ZeroEngine: ...

    def normalise(self, returns: torch.Tensor, group: int) -> torch.Tensor:
        """Advantages of returns of all processes (eq. 9)."""
        ...

    def measure_kl(self, micro_batches: list[dict], snapshot: Snapshot, estimator: str | None = None) -> float:
        """d̂ of the current weights against `snapshot`, in nats per message."""
        ...


@dataclass
class ActiveUpdate:
    """
    The update in progress, or the last one.

    Args:
        agent ([`Member`]): The agent that is updated.
        rows (`list[dict]`): The stage's prompts, of this process.
        report ([`UpdateReport`]): The result of the update, once it has ended.
        logged (`dict[str, int]`): Number of values of each metric, of earlier updates, that are not logged yet.
    """

    agent: Any
    rows: list[dict[str, Any]] = field(default_factory=list)
    report: UpdateReport = field(default_factory=UpdateReport)
    logged: dict[str, int] = field(default_factory=dict)


class Watched(Protocol):
    """The training of a team."""

    args: Any
    state: Any
    team: Team
    active: ActiveUpdate
    trained_members: list
    transcript_log: Any

    def add_callback(self, callback: Any) -> None: ...

    def value_of(self, row: dict[str, Any], rollouts: Any, turn: int, num_rollouts: int = 32) -> Any:
        """What a message of a rollout is worth."""
        ...

    def compute_returns(self, rows: list[dict[str, Any]], transcripts: list[Transcript]) -> torch.Tensor:
        """Weighted rewards of rollouts, over all processes. Logs nothing."""
        ...

    def log_metric(self, name: str, value: float) -> None:
        """Add a value to a metric of the training."""
        ...
