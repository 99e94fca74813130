"""The state of an optimizer, from one step of it on weights without values."""

from collections.abc import Sequence

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import Trainer

from ..teamtr_config import TeamTRConfig


def count_moments(weights: Sequence[torch.Tensor], args: TeamTRConfig, mode: FakeTensorMode) -> int:
    """
    Bytes of the state that the optimizer of `args` keeps for `weights`, which are tensors of `mode`.

    Raises:
        `NotImplementedError`: For optimizers of other packages, whose kernels cannot be tried without values.
    """
    if not weights:
        return 0
    kind, kwargs = Trainer.get_optimizer_cls_and_kwargs(args)
    if not kind.__module__.startswith(("torch.", "transformers.")):
        raise NotImplementedError(
            f"What `optim={str(args.optim)!r}` keeps is not known before a run: its optimizer is {kind.__module__}.{kind.__name__}. "
            "Plan with one of PyTorch or transformers, such as 'adamw_torch_fused', 'adafactor' or 'sgd'."
        )
    with mode:
        copies = [torch.nn.Parameter(torch.empty(weight.shape, dtype=weight.dtype)) for weight in weights]
        for copied in copies:
            copied.grad = torch.empty_like(copied)
        optimizer = kind(copies, **kwargs)
        optimizer.step()
        values = [value for state in optimizer.state.values() for value in state.values()]
    tensors = [value for value in values if isinstance(value, torch.Tensor)]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
