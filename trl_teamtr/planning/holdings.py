"""What an agent keeps between calls: weights, moments, gradients and copies, on the device and in host memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .launches import Launch
from .skeleton import Skeleton


SINGLE = 4  # bytes of a number in float32

# Weights that ZeRO-3 gathers ahead of their use (`stage3_max_live_parameters` and the bucket of the prefetch), at most
LIVE_PARAMETERS = 10**9


@dataclass(frozen=True)
class Holdings:
    """
    What one process holds of an agent, in bytes.

    Args:
        weights (`int`): Of its own weights, those of its reference model included.
        moments (`int`): Of the optimizer's state, and of the float32 master weights under ZeRO.
        gradients (`int`): Once all are accumulated.
        snapshot (`int`): Of the copy of its trainable weights.
        copied (`int`): Of the optimizer's state that a snapshot copies to host memory.
        gathered (`int`): Of weights that are whole for a moment, while the model is called.
        gathered_to_generate (`int`): The same while it generates.
    """

    weights: int
    moments: int
    gradients: int
    snapshot: int
    copied: int
    gathered: int = 0
    gathered_to_generate: int = 0


def partition(number: int, launch: Launch, stage: int) -> int:
    """What one process holds of `number`, which is divided over all processes from ZeRO's `stage` on."""
    return -(-number // launch.num_processes) if launch.zero_stage >= stage else number


def hold(skeleton: Skeleton, moments: int, launch: Launch, reference: bool, gather_to_generate: bool) -> Holdings:
    """
    The holdings of an agent.

    Args:
        skeleton ([`Skeleton`]): Its model, in the dtype in which the engine holds it.
        moments (`int`): Bytes of the optimizer's state without ZeRO; under ZeRO, of that for float32 weights.
        launch ([`Launch`]): The launch.
        reference (`bool`): Whether there is a second model as the reference.
        gather_to_generate (`bool`): Whether ZeRO-3 gathers all weights to generate.
    """
    whole = skeleton.own_bytes + (skeleton.own_bytes if reference else 0)
    if not launch.zero_stage:
        trained = skeleton.trained_bytes
        return Holdings(whole, moments, trained, trained, moments)
    master = partition(SINGLE * skeleton.num_trained, launch, 1)
    state = partition(moments, launch, 1)
    # Beside the gradients of the weights, ZeRO has those of the master weights in float32 for its step
    gradients = partition(skeleton.trained_bytes, launch, 2) + master
    weights = partition(whole, launch, 3)
    total = skeleton.own_bytes + skeleton.shared_bytes
    is_partitioned = launch.zero_stage == 3
    live = min(total, LIVE_PARAMETERS * total // max(skeleton.num_parameters, 1)) if is_partitioned else 0
    return Holdings(
        weights,
        master + state,
        gradients,
        master,
        state,
        live,
        total if is_partitioned and gather_to_generate else live,
    )


def shared_weights(skeletons: Sequence[Skeleton], launch: Launch) -> int:
    """Bytes of the bases that agents share, each counted once, in the dtype of the agents that are trained."""
    bases: dict[Any, int] = {}
    for skeleton in skeletons:
        if skeleton.base is not None:
            bases[skeleton.base] = max(bases.get(skeleton.base, 0), skeleton.shared_bytes)
    return partition(sum(bases.values()), launch, 3)
