"""Copies of models that owe the original nothing but, if wanted, its weights."""

import copy
import itertools
from types import MethodType

from transformers import PreTrainedModel


def copy_untouched(model: PreTrainedModel, shared: dict | None = None) -> PreTrainedModel:
    """
    A deep copy without the wrappers that trainers and accelerate have put around the original's `forward`: a copied
    wrapper would go on calling the original, so that the copy would be trained and the original would speak.

    Args:
        model ([`~transformers.PreTrainedModel`]): The original; left as it is.
        shared (`dict`, *optional*): What is not copied, by its `id`, as `copy.deepcopy` takes it.
    """
    copied = copy.deepcopy(model, shared)
    for module in copied.modules():
        own = vars(module)
        if isinstance(own.get("forward"), MethodType) and "__wrapped__" in vars(own["forward"].__func__):
            del own["forward"]
        own.pop("_original_forward", None)  # accelerate's, to which it would unwrap
    return copied


def clone_sharing_weights(model: PreTrainedModel) -> PreTrainedModel:
    """
    A second model over the same parameters and buffers: new modules, no new weights.

    Each clone can be wrapped by PEFT and TRL like a model of its own, so that n adapters on one base need no
    switching between adapters. The shared parameters must stay frozen.
    """
    tensors = itertools.chain(model.parameters(), model.buffers())
    return copy_untouched(model, {id(tensor): tensor for tensor in tensors})
