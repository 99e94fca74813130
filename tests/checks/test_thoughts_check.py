"""Rewards that look for thoughts in answers are refused where answers have none."""

import pytest
from tiny import make_team, make_trainer
from trl.rewards import reasoning_accuracy_reward, think_format_reward


@pytest.mark.parametrize("reward", [think_format_reward, reasoning_accuracy_reward])
def test_they_are_named_with_what_to_do(tmp_path, reward):
    with pytest.raises(
        ValueError, match=f"'{reward.__name__}' looks for thoughts .* those of 'x', 'y' are private.*shared"
    ):
        make_trainer(tmp_path, make_team(2, thinking_end="u"), reward_funcs=[reward])
    make_trainer(tmp_path, make_team(2), reward_funcs=[reward])
    make_trainer(tmp_path, make_team(1, thinking_end="u"), reward_funcs=[reward])  # of one everybody reads all
