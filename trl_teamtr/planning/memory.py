"""The memory of each phase of a run, on one process."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from ..policy.scoring import rows_in
from ..rollouts.verification import LOGITS_PER_CHUNK as LOGITS_OF_DRAFTS
from ..trust_region.policy_kl import LOGITS_PER_CHUNK as LOGITS_OF_KL
from .calls import Calls, Cost
from .holdings import Holdings
from .launches import Launch
from .lengths import AgentLengths
from .skeleton import Skeleton


PHASES = ("rollouts", "scoring", "update", "backtracking")

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
        generated (`int`): Rows that are generated from together.
    """

    rollouts: int
    micro_batch: int
    accumulates: bool
    generated: int


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
        base = _between_calls(member, members, shared, launch, offloads)
        held = _with_snapshot(base, member, members, resampling)
        cost = _generation(member, calls, batches)
        found["rollouts"].append(_with(held, cost, member.holdings.gathered_to_generate, "rollouts"))
        scored = _scoring(member, calls, batches, resampling)
        found["scoring"].append(_with(held, scored, member.holdings.gathered, "scoring"))
        if member.skeleton.trainable:
            found["update"].append(_update(base, member, calls, batches, launch))
            if member.kl_estimator is not None:
                found["backtracking"].append(_backtracking(base, member, calls, batches, launch))
    return [max(entries, key=lambda phase: phase.total) for entries in found.values() if entries]


def _between_calls(member: Member, members: Sequence[Member], shared: int, launch: Launch, offloads: bool) -> Phase:
    """Weights and moments while `member` speaks or trains."""
    trained = [other for other in members if other.skeleton.trainable]
    weights = sum(other.holdings.weights for other in members)
    moments = {other.name: other.holdings.moments for other in trained}
    # Those of the agent that trains are on the device, also while others speak
    present = moments.get(member.name, max(moments.values(), default=0))
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


def _with_snapshot(base: Phase, member: Member, members: Sequence[Member], resampling: str) -> Phase:
    """While rollouts are made, those modes that compare policies hold the one before the last update."""
    trained = [other for other in members if other.skeleton.trainable]
    if resampling not in ("speculative", "importance") or len(trained) < 2:
        return base
    largest = max(trained, key=lambda other: other.holdings.snapshot)
    copied = largest.holdings.copied if largest.kl_estimator is not None else 0
    return replace(base, snapshot=largest.holdings.snapshot, host=base.host + copied)


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


def _generation(member: Member, calls: Calls, batches: Batches) -> Cost:
    lengths = member.lengths
    return calls.generation(member.skeleton, batches.generated, lengths.context, lengths.message)


def _scoring(member: Member, calls: Calls, batches: Batches, resampling: str) -> Cost:
    lengths, skeleton = member.lengths, member.skeleton
    rows = min(batches.micro_batch, batches.rollouts)
    costs = [calls.scoring(skeleton, rows, lengths.view)] if skeleton.trainable else []
    if resampling == "speculative":
        drafts = min(batches.rollouts, rows_in(lengths.message, skeleton.vocab_size, LOGITS_OF_DRAFTS))
        cost = calls.logits(skeleton, drafts, lengths.view, lengths.message + 1)
        kept = calls.logit_bytes(skeleton, drafts, lengths.message + 1)
        chunk = min(LOGITS_OF_DRAFTS, drafts * lengths.message * skeleton.vocab_size)
        compared = 2 * kept + VERIFICATION_COPIES * 4 * chunk
        # The second pass runs beside the logits of the first
        costs.append(max(replace(cost, logits=cost.logits + kept), Cost(logits=compared), key=lambda cost: cost.total))
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
        keep = length - member.lengths.contexts[0]
        few = min(rows, rows_in(keep + 1, member.skeleton.vocab_size, LOGITS_OF_KL))
        cost = calls.exact_kl(member.skeleton, few, length, keep + 1)
    else:
        cost = calls.scoring(member.skeleton, rows, length)
    phase = _hold_snapshot(_with(base, cost, member.holdings.gathered, "backtracking"), member.holdings, launch)
    return replace(phase, host=phase.host + member.holdings.snapshot)  # the proposed weights wait there


def _hold_snapshot(phase: Phase, holdings: Holdings, launch: Launch) -> Phase:
    host = phase.host + holdings.copied
    if launch.offload_optimizer:
        return replace(phase, host=host + holdings.snapshot)
    return replace(phase, snapshot=holdings.snapshot, host=host)
