"""The plan of a run: its memory and its time, before any weights are loaded."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import psutil
import torch
from peft import PeftConfig
from torch._subclasses.fake_tensor import FakeTensorMode

from ..agents.agent import Agent
from ..agents.member_args import agent_args
from ..agents.resolving import resolve_team
from ..agents.settings import SpeakingSettings
from ..checks.sampling_checks import choose_estimator, choose_resampling
from ..policy.precision import AUTOCAST
from ..teamtr_config import TeamTRConfig
from .advice import advise
from .calls import Calls
from .holdings import hold, shared_weights
from .launches import Launch
from .lengths import AgentLengths, find_lengths
from .memory import GIB, Batches, Member, Phase, phases_of
from .moments import count_moments
from .skeleton import Skeleton, SkeletonMaker
from .stage_time import time_stage
from .table import memory_lines, team_lines, time_lines


@dataclass
class Plan:
    """
    What a run takes on one process. `str` makes the table of it.

    Args:
        members (`list[Member]`): The agents.
        phases (`list[Phase]`): Memory of each phase.
        batches ([`Batches`]): How rollouts are processed.
        launch ([`Launch`]): The launch.
        device_bytes (`int`, *optional*): What the device has; `None` if that is not known.
        resampling (`str`): What is generated before each update.
        advice (`list[str]`): What to change; empty if everything fits.
        seconds (`dict[str, float]`): Of a stage by part; empty unless it was calibrated.
        device (`str`, *optional*): Where it was, or was tried.
    """

    members: list[Member]
    phases: list[Phase]
    batches: Batches
    launch: Launch
    device_bytes: int | None
    resampling: str
    advice: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    device: str | None = None

    @property
    def peak(self) -> Phase:
        """The phase that takes most of the device."""
        return max(self.phases, key=lambda phase: phase.total if self.launch.on_cpu else phase.device)

    @property
    def fits(self) -> bool | None:
        """Whether all phases fit; `None` if the size of the device is not known."""
        if self.device_bytes is None:
            return None
        return (self.peak.total if self.launch.on_cpu else self.peak.device) <= self.device_bytes

    def __str__(self) -> str:
        batches, launch = self.batches, self.launch
        engine = f"ZeRO-{launch.zero_stage}" if launch.zero_stage else "no ZeRO"
        place = "CPU" if launch.on_cpu else "GPU"
        size = "of unknown size" if self.device_bytes is None else f"of {self.device_bytes / GIB:.1f} GiB"
        lines = [
            f"Plan for {launch.num_processes} process(es), {engine}, mixed precision {launch.mixed_precision}, each on a "
            f"{place} {size}; resampling {self.resampling}, {batches.rollouts} rollouts per update and process, "
            f"{batches.micro_batch} in a micro-batch. At most:",
            "",
            *team_lines(self.members),
            "",
            *memory_lines(self.phases, self.device_bytes, launch.on_cpu),
        ]
        if self.seconds:
            lines += ["", *time_lines(self.seconds, str(self.device))]
        elif self.device is not None:
            lines += ["", f"The time of a stage is not known: {self.device} is too slow to tell within ten seconds."]
        if self.fits is None:
            lines += ["", "Whether it fits is not known: pass the size of a device (`--device_memory_gib`)."]
        elif self.fits:
            lines += ["", "Everything fits."]
        else:
            lines += ["", "It does not fit. What would make it smaller, that which concerns most memory first:"]
            lines += [f"- {text}" for text in self.advice]
        return "\n".join(lines)


def plan(
    model: Any,
    args: TeamTRConfig,
    peft_config: PeftConfig | None = None,
    *,
    launch: Launch | str | None = None,
    device_memory_gib: float | None = None,
    prompt_length: int = 512,
    calibrate: bool = False,
) -> Plan:
    """
    Plan the memory and the time of a run from the configs of its models: no weights are loaded. All figures are upper
    bounds, with every prompt and every message as long as it may be.

    Args:
        model: The team, as [`TeamTRTrainer`] takes it.
        args ([`TeamTRConfig`]): The options.
        peft_config ([`~peft.PeftConfig`], *optional*): As [`TeamTRTrainer`] takes it.
        launch ([`Launch`] or `str`, *optional*): The launch, or a config file of accelerate. Defaults to that of the present
            process.
        device_memory_gib (`float`, *optional*): Memory of a GPU. Defaults to that of the first one here, and of this machine
            for runs on a CPU.
        prompt_length (`int`, *optional*, defaults to `512`): Tokens of the longest prompt, with the system prompt.
        calibrate (`bool`, *optional*, defaults to `False`): Whether to run a few layers of each model on the device at hand,
            for about ten seconds, from which the time of a stage follows.

    Returns:
        [`Plan`]

    Raises:
        `ValueError`: If prompts and messages do not fit into the contexts.
        `NotImplementedError`: For optimizers of packages that can only be tried on a device, with `use_vllm=True`, and with
            remote members.
    """
    agents, mode = resolve_team(model, args, peft_config), FakeTensorMode()
    _refuse_servers(args, agents)
    launch = _find_launch(args, launch, device_memory_gib)
    half = AUTOCAST.get(launch.mixed_precision)
    maker = SkeletonMaker(SpeakingSettings.of(args), half if launch.zero_stage else None, mode)
    skeletons = [maker.make(agent) for agent in agents]
    lengths = find_lengths(agents, skeletons, args, prompt_length)
    members = _make_members(agents, skeletons, lengths, args, launch, mode)

    steps = args.steps_per_generation or 1
    rollouts = args.per_device_train_batch_size * steps
    accumulates = (args.gradient_accumulation_steps or 1) > 1
    device_bytes = _find_device_bytes(launch, device_memory_gib)
    cache_bytes = None if args.generation_cache_gib is None else args.generation_cache_gib * GIB
    batches = Batches(rollouts, args.per_device_train_batch_size, accumulates, cache_bytes, device_bytes)
    precision = "no" if launch.zero_stage else launch.mixed_precision
    calls = Calls(mode, precision, args.scoring_precision, bool(args.gradient_checkpointing))
    resampling = choose_resampling(args, agents)
    shared = shared_weights(skeletons, launch)
    phases = phases_of(members, shared, calls, batches, launch, resampling, args.offload_idle_agents)
    found = Plan(members, phases, batches, launch, device_bytes, resampling)
    found.advice = advise(phases, members, args, launch, device_bytes)
    if calibrate:
        found.seconds, found.device = time_stage(members, batches, args, resampling)
    return found


def _refuse_servers(args: TeamTRConfig, agents: Sequence[Agent]):
    remote = [agent.name for agent in agents if agent.is_remote]
    if remote:
        raise NotImplementedError(
            f"A plan does not know remote members, and how much the others read of {remote[0]!r}. Plan with a frozen model of this "
            "machine in its place: the trainer takes no more with an endpoint."
        )
    if args.use_vllm and args.vllm_mode == "server":
        raise NotImplementedError(
            "A plan does not know vLLM servers. Plan with `use_vllm=False`: the trainer takes no more with servers, and nothing "
            "for generation. A server tells when it starts how much its GPU has left for keys and values."
        )
    if args.use_vllm:
        raise NotImplementedError(
            "A plan does not know vLLM engines. Plan with `use_vllm=False`, and add `vllm_gpu_memory_utilization` of the device for "
            "each engine; with `vllm_enable_sleep_mode=True` while agents speak, and not in updates."
        )


def _find_launch(args: TeamTRConfig, launch: Launch | str | None, device_memory_gib: float | None) -> Launch:
    if isinstance(launch, str):
        launch = Launch.read(launch)
    elif launch is None:
        launch = Launch.of(args)
        if device_memory_gib is not None:  # a GPU that need not be here
            launch = replace(launch, on_cpu=False)
    return launch


def _find_device_bytes(launch: Launch, device_memory_gib: float | None) -> int | None:
    if device_memory_gib is not None:
        return int(device_memory_gib * GIB)
    if launch.on_cpu:
        return psutil.virtual_memory().total // launch.num_processes
    return torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else None


def _make_members(
    agents: Sequence[Agent],
    skeletons: Sequence[Skeleton],
    lengths: Sequence[AgentLengths],
    args: TeamTRConfig,
    launch: Launch,
    mode: FakeTensorMode,
) -> list[Member]:
    members = []
    for agent, skeleton, own in zip(agents, skeletons, lengths, strict=True):
        weights: list[torch.Tensor] = list(skeleton.trained_weights)
        if launch.zero_stage and weights:  # one flat partition in float32
            with mode:
                weights = [torch.empty(skeleton.num_trained)]
        moments = count_moments(weights, args, mode)
        whole = skeleton.num_trained == skeleton.num_parameters
        reference = args.beta != 0 and skeleton.trainable and whole
        holdings = hold(skeleton, moments, launch, reference, args.ds3_gather_for_generation)
        radius = agent.radius_in(args) if agent.trainable else None
        estimator = None if radius is None else choose_estimator(agent_args(args, agent, lead=False), radius)
        members.append(Member(agent.name, skeleton, own, holdings, estimator))
    return members
