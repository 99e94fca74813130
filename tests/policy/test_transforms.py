"""The transforms by which drafts are verified are those that `generate` applies, in its order."""

import pytest
import torch
from tiny import make_model
from transformers import GenerationConfig, TemperatureLogitsWarper

from trl_teamtr.agents.settings import SamplingSettings
from trl_teamtr.policy.transforms import sampling_transforms


@pytest.mark.parametrize("fields", [{}, {"top_k": 2}, {"top_p": 0.8}, {"min_p": 0.2}, {"top_k": 2, "top_p": 0.5}])
def test_transforms_are_those_of_generate(fields):
    config = GenerationConfig(**{"do_sample": True, "temperature": 0.7, "top_k": 0} | fields)
    theirs = make_model()._get_logits_processor(config, input_ids_seq_length=1)
    logits = torch.tensor([[0.3, 1.0, -0.5], [2.0, 0.1, 0.0]])
    ours = TemperatureLogitsWarper(0.7)(None, logits)
    for transform in sampling_transforms(SamplingSettings(temperature=0.7, **fields)):
        ours = transform(None, ours)
    torch.testing.assert_close(ours, theirs(torch.tensor([[0], [0]]), logits), atol=0, rtol=0)
