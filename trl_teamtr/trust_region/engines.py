"""What an update needs from an agent's engine: plain PyTorch and DDP, or DeepSpeed's ZeRO stages 1 to 3."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from accelerate.utils import DistributedType, patch_environment
from torch import nn
from transformers import Trainer
from trl.models.utils import prepare_deepspeed

from ..policy.processes import union


class PlainEngine:
    """
    One process, or DDP: every process holds all weights, and the optimizer works on them directly.

    Args:
        trainer ([`~transformers.Trainer`]): The agent's. Its optimizer may be made later.

    Attributes:
        is_behind (`bool`): Whether `weights` were changed without [`publish`].
        moments_on_host (`dict[int, torch.Tensor]`): Copies of moments that no step has changed since, by `id`.
        holds_layers (`bool`): Whether one layer can have other weights for a moment, at no cost.
    """

    holds_layers = True

    def __init__(self, trainer: Trainer):
        assert trainer.model is not None  # an agent's trainer is given a model
        self._trainer = trainer
        self._params = [param for param in trainer.model.parameters() if param.requires_grad]
        self.grad_norm = 0.0
        self.is_behind = False
        self.moments_on_host: dict[int, torch.Tensor] = {}

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The optimizer that holds the moments."""
        optimizer = self._trainer.optimizer
        assert optimizer is not None  # it is made before the first update
        return optimizer

    @property
    def weights(self) -> list[torch.Tensor]:
        """The trainable weights that this process holds, in their full precision."""
        return [param.detach() for param in self._params]

    def publish(self):
        """Apply a change of `weights` to the model. All processes call this together."""

    @contextlib.contextmanager
    def holding(self, weights: list[torch.Tensor], layer: nn.Module | None = None) -> Iterator[None]:
        """
        Context in which the model has `weights`; afterwards it has its own again, to the bit. All processes enter
        together. No second copy of its own is made on the device.

        Args:
            weights (`list[torch.Tensor]`): In the order of [`weights`].
            layer ([`~torch.nn.Module`], *optional*): The only one that has them, if `holds_layers`.
        """
        concerned = None if layer is None else {id(param) for param in layer.parameters()}
        pairs = [
            (param, other)
            for param, other in zip(self._params, weights, strict=True)
            if concerned is None or id(param) in concerned
        ]
        own = [param.data for param, _ in pairs]
        try:
            for param, other in pairs:
                param.data = other
            yield
        finally:
            for (param, _), data in zip(pairs, own, strict=True):
                param.data = data

    def catch_up(self):
        """[`publish`] if any process is behind. All processes call this together."""
        self.is_behind = False  # the model has the weights themselves

    def clip_gradients(self):
        """Clip the accumulated gradient, unless [`step`] does it."""
        trainer = self._trainer
        norm = trainer._clip_grad_norm(trainer.model_wrapped) if trainer.args.max_grad_norm > 0 else None
        self.grad_norm = float(trainer._get_grad_norm(trainer.model_wrapped, grad_norm=norm))

    def step(self):
        """Apply and discard the accumulated gradient. `grad_norm` is then its norm before clipping."""
        self.moments_on_host = {}
        self.optimizer.step()
        self.discard_gradients()

    def discard_gradients(self):
        """Discard the accumulated gradient."""
        self._trainer.model_wrapped.zero_grad()

    def unlink_moments(self):
        """Release all views of the moments before they leave the device."""

    def link_moments(self):
        """Restore the views after the moments are back."""


class ZeroEngine:
    """
    ZeRO stage 1 or 2: the float32 master weights and the moments are partitioned, the model's weights are not.

    Args:
        trainer ([`~transformers.Trainer`]): The agent's, prepared for training.
    """

    holds_layers = False

    def __init__(self, trainer: Trainer):
        self._engine: Any = trainer.model_wrapped  # a DeepSpeed engine
        self._zero: Any = self._engine.optimizer
        self._accelerator = trainer.accelerator
        self.grad_norm = 0.0
        self.is_behind = False
        self.moments_on_host: dict[int, torch.Tensor] = {}
        # accelerate steps right after the last micro-batch, but the trust region must decide first
        trainer.accelerator.deepspeed_engine_wrapped.engine = _StepLater(self._engine)

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        return self._zero.optimizer

    @property
    def weights(self) -> list[torch.Tensor]:
        return [partition.detach() for partition in self._zero.single_partition_of_fp32_groups]

    def publish(self):
        self._zero.update_lp_params()

    @contextlib.contextmanager
    def holding(self, weights: list[torch.Tensor], layer: nn.Module | None = None) -> Iterator[None]:
        assert layer is None
        # Written, since the partitions are views of DeepSpeed's own buffers
        own = [tensor.to("cpu", copy=True) for tensor in self.weights]
        try:
            copy_weights(weights, self.weights)
            self.publish()
            yield
        finally:
            copy_weights(own, self.weights)
            self.publish()

    def catch_up(self):
        if union(self._accelerator, {True} if self.is_behind else set()):
            self.publish()
        self.is_behind = False

    def clip_gradients(self):
        pass  # DeepSpeed's step does

    def step(self):
        self.moments_on_host = {}
        self._engine.step()
        self.grad_norm = float(self._engine.get_global_grad_norm())

    def discard_gradients(self):
        from deepspeed.runtime.zero.stage_1_and_2 import INITIAL_MICRO_STEP_ID

        # What `step` itself clears when it skips a step because of an overflow
        self._zero.zero_grad(set_to_none=True)
        self._zero.micro_step_id = INITIAL_MICRO_STEP_ID
        for group in range(len(self._zero.bit16_groups)):
            self._zero.averaged_gradients[group] = None
            self._zero.all_grad_tensors[group] = None
        self._zero.reset_cpu_buffers()

    def unlink_moments(self):
        self._zero._clear_hp_buffer_references()

    def link_moments(self):
        self._zero._link_all_hp_params()
        self._zero._hp_optimizer_states_linked = False  # the next step does it


class Zero3Engine(ZeroEngine):
    """ZeRO stage 3: the model's weights are partitioned too."""

    @property
    def weights(self) -> list[torch.Tensor]:
        return [partition.detach() for partition in self._zero.fp32_partitioned_groups_flat]

    def publish(self):
        self._zero._partition_all_parameters()
        for group in range(len(self._zero.fp16_groups)):
            self._zero._reassign_or_swap_out_partitioned_parameters(group)
        self._zero._post_step([])  # gathers the small parameters, which stay whole on every process

    def discard_gradients(self):
        self._zero._overflow_clean_up(prev_scale=1.0)

    def unlink_moments(self):
        pass  # stage 3 keeps no views

    def link_moments(self):
        pass


def copy_weights(source: list[torch.Tensor], target: list[torch.Tensor]):
    """Write the values of `source` into the tensors of `target`."""
    for now, other in zip(target, source, strict=True):
        now.copy_(other)


class _StepLater:
    """A DeepSpeed engine as `Accelerator.backward` sees it, without its step."""

    def __init__(self, engine: Any):
        self.set_gradient_accumulation_boundary = engine.set_gradient_accumulation_boundary
        self.backward = engine.backward
        self.get_global_grad_norm = engine.get_global_grad_norm

    def step(self):
        pass


def make_engine(trainer: Trainer, name: str) -> PlainEngine | ZeroEngine:
    """
    The engine of agent `name`, whose trainer is prepared for training.

    Raises:
        `NotImplementedError`: For engines other than plain PyTorch, DDP and ZeRO 1 to 3 on GPU or CPU memory.
    """
    if trainer.accelerator.distributed_type != DistributedType.DEEPSPEED:
        return PlainEngine(trainer)
    from deepspeed.runtime.zero.stage3 import DeepSpeedZeroOptimizer_Stage3
    from deepspeed.runtime.zero.stage_1_and_2 import DeepSpeedZeroOptimizer

    kinds = {DeepSpeedZeroOptimizer: ZeroEngine, DeepSpeedZeroOptimizer_Stage3: Zero3Engine}
    kind = type(trainer.model_wrapped.optimizer)
    if kind not in kinds:
        raise NotImplementedError(
            f"DeepSpeed made a {kind.__name__} for agent {name!r}, but the trust region can revert a step of "
            "ZeRO stages 1, 2 and 3 only. Use one of accelerate_configs/zero1.yaml, zero2.yaml, zero3.yaml."
        )
    return kinds[kind](trainer)


@contextlib.contextmanager
def loading_runs_no_code(trainer: Trainer) -> Iterator[None]:
    """Context in which DeepSpeed, which unpickles what a checkpoint holds, loads only tensors and its own records."""
    if trainer.accelerator.distributed_type != DistributedType.DEEPSPEED:
        yield  # transformers loads weights only
        return
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    known = [DynamicLossScaler, LossScaler, ZeroStageEnum, fragment_address]
    with torch.serialization.safe_globals(known), patch_environment(torch_force_weights_only_load="1"):
        yield


def prepare_frozen(trainer: Trainer):
    """Prepare the model of a frozen agent for the engine: under ZeRO-3 it is partitioned."""
    if trainer.accelerator.distributed_type == DistributedType.DEEPSPEED:
        assert trainer.model is not None  # an agent's trainer is given a model
        trainer.model_wrapped = trainer.deepspeed = prepare_deepspeed(trainer.model, trainer.accelerator)
        trainer.accelerator.deepspeed_config = trainer.accelerator.state.deepspeed_plugin.deepspeed_config
