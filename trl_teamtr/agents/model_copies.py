"""Copies of models, independent of the original or sharing only its weights."""

import copy
import itertools
from types import MethodType
from typing import TypeVar

from torch import nn


Model = TypeVar("Model", bound=nn.Module)


def copy_untouched(model: Model, shared: dict | None = None) -> Model:
    """
    A deep copy without the wrappers that trainers and accelerate have put around the original's `forward`. A copied
    wrapper would still call the original: the copy would be trained, but the original would generate.

    Args:
        model ([`~torch.nn.Module`]): The original; not modified.
        shared (`dict`, *optional*): Objects that are not copied, by `id`: the `memo` of `copy.deepcopy`.
    """
    copied = copy.deepcopy(model, shared)
    for module in copied.modules():
        own = vars(module)
        if isinstance(own.get("forward"), MethodType) and "__wrapped__" in vars(own["forward"].__func__):
            del own["forward"]
        own.pop("_original_forward", None)  # accelerate would unwrap to it
    return copied


def clone_sharing_weights(model: Model) -> Model:
    """
    A second model over the same parameters and buffers: new modules, no new weights.

    PEFT and TRL can wrap each clone like a separate model, so n adapters on one base need no adapter switching. The
    shared parameters must stay frozen.
    """
    tensors = itertools.chain(model.parameters(), model.buffers())
    return copy_untouched(model, {id(tensor): tensor for tensor in tensors})
