"""Options of a team by themselves; each refusal of a config: tests/test_teamtr_config.py."""

import pytest

from trl_teamtr.options.team_options import check_radius, check_rollout_options


def test_a_config_passes_and_what_is_set_afterwards_is_checked_again(make_config):
    args = make_config()
    check_rollout_options(args)
    args.max_completion_length = 0
    with pytest.raises(ValueError, match="`max_completion_length` must be at least 1, or `None`.*got 0"):
        check_rollout_options(args)


def test_a_radius_is_positive_or_none():
    check_radius(None, "x")
    check_radius(1e-9, "x")
    with pytest.raises(ValueError, match="`trust_region_radius` of agent 'x' is 0"):
        check_radius(0, "agent 'x'")
