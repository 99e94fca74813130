import pytest
from torch import nn

from trl_teamtr.policy.evaluating import evaluating


def test_models_are_in_evaluation_mode_within_and_in_their_own_after():
    first, second = nn.Dropout(), nn.Dropout().eval()
    with pytest.raises(KeyError), evaluating([first, second]):
        assert not first.training and not second.training
        raise KeyError
    assert first.training and not second.training
