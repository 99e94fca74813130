"""Without ZeRO-3 there is nothing to gather; under it: tests/distributed/test_swaps.py."""

from accelerate import Accelerator
from tiny import make_model

from trl_teamtr.agents.gathering import gather_weights


def test_without_zero_3_models_find_their_weights_themselves():
    assert gather_weights(make_model(), Accelerator(cpu=True)) is None
