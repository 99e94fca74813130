"""The memory of each phase of a run, on one process."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from ..policy.cache import WITHOUT_DEVICE, share_of
from ..rollouts import verification
from ..trust_region import policy_kl
from ..trust_region.two_policies import TOKENS_PER_PASS
from .calls import Calls, Cost
from .holdings import SINGLE, Holdings
from .launches import Launch
from .lengths import AgentLengths
from .skeleton import Skeleton


PHASES = ("rollouts", "scoring", "update", "backtracking")

GIB = 2**30

# Tensors of log-probabilities in float32 that `verify` has in memory at a time: two distributions, both exponentials,
# their difference, and what it is clamped to
VERIFICATION_COPIES = 6


@dataclass(frozen=True)
class Phase:
    """
    The most memory of a phase, in bytes.

    Args:
        name (`str`): One of `PHASES`.
        agent (`str`): The agent whose turn it is at that moment.
        weights, moments, gradients, snapshot, cache, logits, activations (`int`): On the device.
        host (`int`): In host memory.
    """

    name: str
    agent: str
    weights: int = 0
    moments: int = 0
    gradients: int = 0
    snapshot: int = 0
    cache: int = 0
    logits: int = 0
    activations: int = 0
    host: int = 0

    @property
    def device(self) -> int:
        """Bytes on the device."""
        return sum(getattr(self, name) for name in KINDS)

    @property
    def total(self) -> int:
        """Bytes on the device and in host memory, which are the same memory on a CPU."""
        return self.device + self.host


# What is on the device
KINDS = tuple(field.name for field in fields(Phase) if field.name not in ("name", "agent", "host"))


@dataclass(frozen=True)
class Member:
    """An agent, and what is known of it. `kl_estimator` is `None` for agents without a radius."""

    name: str
    skeleton: Skeleton
    lengths: AgentLengths
    holdings: Holdings
    kl_estimator: str | None


@dataclass(frozen=True)
class Batches:
    """
    How rollouts are processed, on one process.

    Args:
        rollouts (`int`): Rollouts of an update.
        micro_batch (`int`): Rows of a forward and backward pass.
        accumulates (`bool`): Whether an optimizer step has several of them.
        cache_bytes (`float`, *optional*): What the cache of a generation may take; `None` for what is found on the device.
        device_bytes (`int`, *optional*): What the device has, if that is known.
    """

    rollouts: int
    micro_batch: int
    accumulates: bool
    cache_bytes: float | None = None
    device_bytes: int | None = None


def phases_of(
    members: Sequence[Member],
    shared: int,
    calls: Calls,
    batches: Batches,
    launch: Launch,
    resampling: str,
    offloads: bool,
) -> list[Phase]:
    """
    The memory of each phase from the second stage on, when all moments exist, for the agent that needs most.

    Args:
        members (`Sequence[Member]`): The team.
        shared (`int`): Bytes of weights that agents share.
        calls ([`Calls`]): What calls take.
        batches ([`Batches`]): How much is processed at a time.
        launch ([`Launch`]): The launch.
        resampling (`str`): What is generated before each update.
        offloads (`bool`): Whether weights of agents that neither speak nor train are in host memory.
    """
    found: dict[str, list[Phase]] = {name: [] for name in PHASES}
    for member in members:
        base = _between_calls(member, members, shared, launch, offloads, trains=True)
        idle = _between_calls(member, members, shared, launch, offloads, trains=False)
        held = _with_snapshot(idle, members, resampling)
        cost = _generation(member, calls, batches, held, launch)
        found["rollouts"].append(_with(held, cost, member.holdings.gathered_to_generate, "rollouts"))
        scored = _scoring(member, calls, batches, resampling)
        found["scoring"].append(_with(held, scored, member.holdings.gathered, "scoring"))
        if member.skeleton.trainable:
            found["update"].append(_update(base, member, calls, batches, launch))
            if member.kl_estimator is not None:
                found["backtracking"].append(_backtracking(base, member, calls, batches, launch))
    return [max(entries, key=lambda phase: phase.total) for entries in found.values() if entries]


def _between_calls(
    member: Member, members: Sequence[Member], shared: int, launch: Launch, offloads: bool, trains: bool
) -> Phase:
    """Weights and moments while `member` speaks, or `trains`."""
    trained = [other for other in members if other.skeleton.trainable]
    weights = sum(other.holdings.weights for other in members)
    moments = {other.name: other.holdings.moments for other in trained}
    # Those of the only one that is trained stay on the device
    present = sum(moments.values()) if len(trained) == 1 else moments.get(member.name, 0) if trains else 0
    host = sum(moments.values()) - present
    if offloads:
        host += weights - member.holdings.weights
        weights = member.holdings.weights
    phase = Phase("", member.name, weights=shared + weights, moments=present, host=host)
    if launch.offload_optimizer:
        phase = replace(phase, moments=0, host=phase.host + phase.moments)
    if launch.offload_weights:
        phase = replace(phase, weights=0, host=phase.host + phase.weights)
    return phase


def _with_snapshot(base: Phase, members: Sequence[Member], resampling: str) -> Phase:
    """While rollouts are made, those modes that compare policies hold the one before the last update."""
    trained = [other for other in members if other.skeleton.trainable]
    if resampling not in ("speculative", "importance") or len(trained) < 2:
        return base
    return replace(base, snapshot=max(other.holdings.snapshot for other in trained))


def _with(held: Phase, cost: Cost, gathered: int, name: str) -> Phase:
    return replace(
        held,
        name=name,
        weights=held.weights + gathered,
        gradients=cost.gradients,
        cache=cost.cache,
        logits=cost.logits,
        activations=cost.activations,
    )


def _generation(member: Member, calls: Calls, batches: Batches, held: Phase, launch: Launch) -> Cost:
    """Of as many rows as there is a cache for."""
    lengths, rows = member.lengths, batches.rollouts
    cost = calls.generation(member.skeleton, rows, lengths.context, lengths.message)
    allowed = batches.cache_bytes
    if allowed is None and launch.on_cpu:
        allowed = WITHOUT_DEVICE * GIB
    elif allowed is None and batches.device_bytes is not None:
        allowed = share_of(batches.device_bytes - held.device)
    if allowed is None or cost.cache <= allowed:
        return cost
    few = max(1, int(rows * allowed // cost.cache))
    return calls.generation(member.skeleton, few, lengths.context, lengths.message)


def _scoring(member: Member, calls: Calls, batches: Batches, resampling: str) -> Cost:
    lengths, skeleton = member.lengths, member.skeleton
    rows = min(batches.micro_batch, batches.rollouts)
    costs = [calls.scoring(skeleton, rows, lengths.view)] if skeleton.trainable else []
    if resampling == "speculative":
        most = max(1, verification.LOGITS_PER_CHUNK // skeleton.vocab_size)
        drafts = min(batches.rollouts, most, max(1, TOKENS_PER_PASS // lengths.view))
        # Both policies' hidden states are kept, and logits of a few positions are compared
        costs.append(calls.hidden_states(skeleton, drafts, lengths.view))
        chunk = min(verification.LOGITS_PER_CHUNK, drafts * lengths.message * skeleton.vocab_size)
        costs.append(Cost(logits=(2 + VERIFICATION_COPIES) * SINGLE * chunk))
    return max(costs, key=lambda cost: cost.total, default=Cost())


def _update(base: Phase, member: Member, calls: Calls, batches: Batches, launch: Launch) -> Phase:
    rows, holdings = min(batches.micro_batch, batches.rollouts), member.holdings
    cost = calls.training(member.skeleton, rows, member.lengths.view, batches.accumulates)
    phase = _with(base, cost, holdings.gathered, "update")
    if launch.zero_stage:
        phase = replace(phase, gradients=holdings.gradients)
    if member.kl_estimator is None:
        return phase
    return _hold_snapshot(phase, holdings, launch)


def _backtracking(base: Phase, member: Member, calls: Calls, batches: Batches, launch: Launch) -> Phase:
    rows, length = min(batches.micro_batch, batches.rollouts), member.lengths.view
    if member.kl_estimator == "exact":
        few = min(rows, max(1, TOKENS_PER_PASS // length))
        positions = min(length, max(1, policy_kl.LOGITS_PER_CHUNK // (few * member.skeleton.vocab_size)))
        passes = (
            calls.hidden_states(member.skeleton, few, length),
            calls.exact_kl(member.skeleton, few, positions),
        )
        cost = max(passes, key=lambda cost: cost.total)
    else:
        cost = calls.scoring(member.skeleton, rows, length)
    phase = _hold_snapshot(_with(base, cost, member.holdings.gathered, "backtracking"), member.holdings, launch)
    return replace(phase, host=phase.host + member.holdings.snapshot)  # the proposed weights wait there


def _hold_snapshot(phase: Phase, holdings: Holdings, launch: Launch) -> Phase:
    host = phase.host + holdings.copied
    if launch.offload_optimizer:
        return replace(phase, host=host + holdings.snapshot)
    return replace(phase, snapshot=holdings.snapshot, host=host)
