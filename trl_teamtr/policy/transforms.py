"""The transforms that `generate` applies to logits before it samples."""

from transformers import LogitsProcessorList, MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from ..agents.settings import SamplingSettings


def sampling_transforms(sampling: SamplingSettings) -> LogitsProcessorList:
    """The transforms that `generate` applies after the temperature, in its order."""
    transforms = LogitsProcessorList()
    if sampling.top_k:
        transforms.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1.0:
        transforms.append(TopPLogitsWarper(sampling.top_p))
    if sampling.min_p:
        transforms.append(MinPLogitsWarper(sampling.min_p))
    return transforms
