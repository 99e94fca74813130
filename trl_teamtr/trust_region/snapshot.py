"""The policy before an update, and how to return to it."""

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from .engines import PlainEngine, ZeroEngine, copy_weights
from .entropy import EntropyState


class Snapshot:
    """
    The policy π_cur at the start of an update: its trainable weights, and the state of its optimizer.

    Under ZeRO each process keeps its own partition of the float32 master weights, so that no precision is lost and
    nothing is gathered. The optimizer's state, which only a rejection needs, is kept in CPU memory: moments that have just
    come from there have left a copy.

    Args:
        engine (`PlainEngine` or `ZeroEngine`): The engine of the agent.
        with_optimizer (`bool`): Whether to keep the optimizer's state, which [`~Snapshot.restore`] needs.
        weights (`list[torch.Tensor]`, *optional*): Weights of π_cur, if they are not those of the engine now.
    """

    def __init__(
        self,
        engine: PlainEngine | ZeroEngine,
        with_optimizer: bool = True,
        weights: list[torch.Tensor] | None = None,
    ):
        self._engine = engine
        self._proposed: list[torch.Tensor] | None = None
        self._halvings = 0
        self.weights = [tensor.clone() for tensor in engine.weights] if weights is None else weights
        self._optimizer_state = copy_optimizer_state(engine) if with_optimizer else None

    def halve(self):
        r"""
        Halve the step from π_cur to the policy that was proposed: after k calls the weights are
        $\theta_{cur} + 2^{-k} (\theta_{new} - \theta_{cur})$, computed in float32 and rounded once, whatever their dtype. (Halved
        again and again, low-precision weights would stop one unit in the last place from π_cur.) The optimizer keeps
        its moments. The proposed weights wait in CPU memory.
        """
        if self._proposed is None:
            self._proposed = [tensor.to("cpu", copy=True) for tensor in self._engine.weights]
        self._halvings += 1
        for now, then, proposed in zip(self._engine.weights, self.weights, self._proposed, strict=True):
            dtype = torch.promote_types(now.dtype, torch.float32)
            step = proposed.to(now.device, dtype) - then.to(dtype)
            now.copy_(then.to(dtype) + step * 0.5**self._halvings)
        self._engine.publish()

    def restore(self, alone: bool = False):
        """
        Reset the weights, and the optimizer if its state was kept, to the start of the update.

        Args:
            alone (`bool`): Whether other processes may not restore now: then the policy follows at the next
                [`~PlainEngine.catch_up`], which all processes call together.
        """
        copy_weights(self.weights, self._engine.weights)
        if alone:
            self._engine.is_behind = True
        else:
            self._engine.publish()
        if self._optimizer_state is not None:
            restore_optimizer_state(self._engine.optimizer, self._optimizer_state)

    def settle(self):
        """The update stands: discard the optimizer's state, which only [`restore`] needs."""
        self._optimizer_state = None

    def current_policy(self) -> contextlib.AbstractContextManager[None]:
        """Context in which the model is π_cur; afterwards its weights are restored bitwise."""
        return self._engine.holding(self.weights)

    @property
    def holds_layers(self) -> bool:
        """Whether [`current_layer`] is possible."""
        return self._engine.holds_layers

    def current_layer(self, layer: nn.Module) -> contextlib.AbstractContextManager[None]:
        """Context in which one layer of the model is that of π_cur. Nothing is copied."""
        return self._engine.holding(self.weights, layer)


@contextlib.contextmanager
def all_or_nothing(before: Snapshot | None, engine: PlainEngine | ZeroEngine, entropy: EntropyState) -> Iterator[None]:
    """
    Context of an update: if anything ends it early, an error, an exception in a callback or Ctrl-C, the update is
    reverted, and its gradients are discarded. Without a radius, steps that were made stay.

    Args:
        before ([`Snapshot`], *optional*): π_cur, with its optimizer; `None` without a radius.
        engine (`PlainEngine` or `ZeroEngine`): The engine of the agent.
        entropy ([`EntropyState`]): That of π_cur.
    """
    try:
        yield
    except BaseException:
        # Other processes may be anywhere: a collective call here could wait for them forever, and hide the error
        if before is not None:
            before.restore(alone=True)
            entropy.restore()
        engine.discard_gradients()
        raise
    else:
        if before is not None:
            before.settle()


def copy_optimizer_state(engine: PlainEngine | ZeroEngine) -> tuple[dict, list[dict]]:
    """The moments by parameter, and the settings of the groups, in CPU memory."""
    optimizer, on_host = engine.optimizer, engine.moments_on_host
    state = {
        param: {key: on_host[id(value)] if id(value) in on_host else _copy(value) for key, value in values.items()}
        for param, values in optimizer.state.items()
    }
    groups = [{k: copy.deepcopy(v) for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    return state, groups


def restore_optimizer_state(optimizer: torch.optim.Optimizer, saved: tuple[dict, list[dict]]):
    """Undo all steps since [`copy_optimizer_state`]. Tensors keep their identity, since ZeRO holds views of them."""
    state, groups = saved
    for param in list(optimizer.state):
        if param not in state:
            del optimizer.state[param]  # made by the first step of a run
    for param, values in state.items():
        for key, value in values.items():
            if isinstance(value, torch.Tensor):
                optimizer.state[param][key].copy_(value)
            else:
                optimizer.state[param][key] = copy.deepcopy(value)
    for group, values in zip(optimizer.param_groups, groups, strict=True):
        group.update(copy.deepcopy(values))


def _copy(value: Any) -> Any:
    return value.detach().to("cpu", copy=True) if isinstance(value, torch.Tensor) else copy.deepcopy(value)
