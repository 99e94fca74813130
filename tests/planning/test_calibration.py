"""The calibration measures, or says that it cannot."""

import pytest
import torch
from planning.teams import maker
from tiny import make_model

from trl_teamtr import Agent
from trl_teamtr.planning.calibration import calibrate


@pytest.mark.parametrize("trainable", [True, False])
def test_calibration_runs_a_few_layers_of_the_model(trainable):
    skeleton = maker()[0].make(Agent("a", make_model(), trainable=trainable))
    found = calibrate(skeleton, torch.device("cpu"), "no", rows=2, length=16, budget=1e6)  # whatever else runs
    assert found.forward > 0 and (found.training > 0) == trainable and found.step >= 0 and found.row >= 0


def test_a_device_that_is_too_slow_is_said_so():
    skeleton = maker()[0].make(Agent("a", make_model()))
    assert calibrate(skeleton, torch.device("cpu"), "no", rows=2, length=16, budget=1e-9) is None
