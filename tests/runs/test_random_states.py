import random

import numpy as np
import pytest
import torch

from trl_teamtr.runs.random_states import kept_if_it_fails


def draw():
    return random.random(), float(np.random.rand()), float(torch.rand(1))


@pytest.mark.parametrize("error, kept", [(KeyError, True), (ValueError, False)])
def test_a_failure_leaves_random_states_as_they_were_and_nothing_else_does(error, kept):
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    with pytest.raises(error), kept_if_it_fails(KeyError, torch.device("cpu")):
        drawn = draw()
        raise error
    assert (draw() == drawn) is kept
    random.setstate(before[0])
    np.random.set_state(before[1])
    torch.set_rng_state(before[2])
    with kept_if_it_fails(KeyError, torch.device("cpu")):
        first = draw()
    assert first == drawn and draw() != drawn
