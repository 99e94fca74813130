"""What is sampled is recorded with its log-probability, and nothing else changes."""

import pytest
import torch

from trl_teamtr.policy.recording import Recorder


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_each_step_is_recorded_at_the_temperature(temperature):
    recorder, steps = Recorder(temperature), [torch.randn(2, 5), torch.randn(2, 5)]
    ids = torch.tensor([[0, 0, 3, 1], [0, 0, 4, 2]])
    for place, scores in enumerate(steps, start=2):
        before = scores.clone()
        assert recorder(ids[:, :place], scores) is scores and torch.equal(scores, before)
        assert not recorder.ending(ids[:, : place + 1], None).any()
    expected = [[(step[row] / temperature).log_softmax(-1)[ids[row, 2 + i]].item() for i, step in enumerate(steps)]
                for row in range(2)]  # fmt: skip
    assert recorder.logps == [pytest.approx(row) for row in expected]
