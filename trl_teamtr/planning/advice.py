"""What to change where a plan does not fit: options that exist, those that concern most memory first."""

from collections.abc import Sequence
from typing import Any

from ..teamtr_config import TeamTRConfig
from .launches import Launch
from .memory import Member, Phase


# Share of what is too much that an option has to concern to be named
WORTH = 0.1


def advise(
    phases: Sequence[Phase], members: Sequence[Member], args: TeamTRConfig, launch: Launch, device_bytes: int | None
) -> list[str]:
    """
    What makes the phases smaller that need more than the device has; nothing if all fit, or if its size is not known.

    Args:
        phases (`Sequence[Phase]`): The plan.
        members (`Sequence[Member]`): The team.
        args ([`TeamTRConfig`]): The options.
        launch ([`Launch`]): The launch.
        device_bytes (`int`, *optional*): What the device has.
    """
    if device_bytes is None:
        return []
    found: dict[str, int] = {}
    for phase in phases:
        excess = (phase.total if launch.on_cpu else phase.device) - device_bytes
        if excess > 0:
            options = sorted(_options(phase, members, args, launch), key=lambda option: -option[1])
            for number, (text, size) in enumerate(options):
                if number == 0 or size >= WORTH * excess:
                    found[text] = max(found.get(text, 0), size)
    return sorted(found, key=lambda text: -found[text])


def _options(phase: Phase, members: Sequence[Member], args: TeamTRConfig, launch: Launch) -> list[tuple[str, int]]:
    """For a phase that does not fit: options, and the bytes that each is about."""
    found = []
    if phase.name == "update" and not args.gradient_checkpointing:
        found.append(("activations: `gradient_checkpointing=True`", phase.activations))
    if phase.name != "rollouts" and args.per_device_train_batch_size > 1:
        text = (
            "activations, logits: a smaller `per_device_train_batch_size`, with `steps_per_generation` larger in turn"
        )
        found.append((text, phase.activations + phase.logits))
    if phase.name == "rollouts":
        text = "cache: fewer rollouts at a time, by a smaller `generation_cache_gib`"
        found.append((text, phase.cache + phase.activations))
    text = "cache, activations: a smaller `max_context_length` or `max_completion_length`"
    found.append((text, phase.cache + phase.activations))
    found += _weights(phase, members, args, launch)
    return [(text, size) for text, size in found if size > 0]


def _weights(phase: Phase, members: Sequence[Member], args: TeamTRConfig, launch: Launch) -> list[tuple[str, int]]:
    trained_whole = [
        m for m in members if m.skeleton.trainable and m.skeleton.num_trained == m.skeleton.num_parameters
    ]
    state = phase.moments + phase.gradients + phase.snapshot
    idle = sum(member.holdings.weights for member in members if member.name != phase.agent)
    found = []
    if trained_whole:
        text = "weights, moments, gradients, snapshot: LoRA (`peft` of an agent, or `--use_peft`), on a base that agents share"
        found.append((text, state + sum(member.holdings.weights for member in trained_whole[1:])))
    if not launch.zero_stage and not args.offload_idle_agents and not launch.on_cpu:
        found.append(("weights of idle agents: `offload_idle_agents=True`", idle))
    if args.share_base_model is False:
        found.append(("weights: `share_base_model=True`", idle))
    given: Any = args.model_init_kwargs or {}
    if given.get("dtype", "float32") in (None, "float32") and not launch.zero_stage:
        found.append(("weights: `dtype: bfloat16`, in which small steps may be lost", phase.weights // 2))
    if launch.zero_stage < 3 and not launch.on_cpu:
        found.append(
            ("weights, moments, gradients: accelerate_configs/zero3.yaml, over several GPUs", phase.weights + state)
        )
    elif launch.zero_stage == 3:
        if not launch.offload_weights:
            found.append(("weights, moments: accelerate_configs/zero3_offload.yaml", phase.weights + phase.moments))
        if phase.name == "rollouts" and args.ds3_gather_for_generation:
            found.append(("weights: `ds3_gather_for_generation=False`, which generates more slowly", phase.weights))
        found.append(("weights, moments, gradients: more GPUs (`--num_processes`)", phase.weights + state))
    return found
