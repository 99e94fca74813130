"""Where the moments are, and how many rows are generated from together."""

import pytest
from planning.teams import pair, plan_of, save_model

from trl_teamtr.planning import Launch
from trl_teamtr.policy.cache import share_of


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("base"))


def test_moments_of_the_only_trained_agent_stay_on_the_device(tmp_path, path):
    alone, two = ({p.name: p for p in plan_of(tmp_path, pair(path)[:n]).phases} for n in (1, 2))
    assert alone["rollouts"].moments == alone["update"].moments > 0
    assert two["rollouts"].moments == 0 and two["update"].moments == alone["update"].moments


def test_a_generation_has_at_most_half_of_what_the_weights_leave(tmp_path, path):
    launch = Launch()
    found = plan_of(tmp_path, pair(path), launch=launch, steps_per_generation=200, device_memory_gib=1e-3)
    rollouts = found.phases[0]
    assert 0 < rollouts.cache <= share_of(2**30 * 1e-3 - rollouts.weights)
    free = plan_of(tmp_path, pair(path), launch=launch, steps_per_generation=200, device_memory_gib=80)
    assert free.phases[0].cache > rollouts.cache
