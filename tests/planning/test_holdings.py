"""The arithmetic of ZeRO: what each stage divides over the processes."""

import pytest
from planning.teams import lora, maker
from tiny import make_model

from trl_teamtr import Agent
from trl_teamtr.planning.holdings import hold, partition, shared_weights
from trl_teamtr.planning.launches import Launch


def test_a_partition_is_rounded_up():
    assert [partition(10, Launch(4, stage), 2) for stage in range(4)] == [10, 10, 3, 3]


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_each_stage_divides_more(stage):
    skeleton = maker()[0].make(Agent("a", make_model()))
    number, whole, moments = skeleton.num_trained, skeleton.own_bytes + skeleton.shared_bytes, 1000
    skeleton = maker()[0].make(Agent("a", make_model()))
    found = hold(skeleton, moments, Launch(4, stage), reference=False, gather_to_generate=True)
    master = -(-4 * number // 4)
    if stage == 0:
        assert (found.moments, found.gradients, found.snapshot) == (moments, 4 * number, 4 * number)
        return
    assert found.moments == master + moments // 4 and found.snapshot == master and found.copied == moments // 4
    assert found.gradients == master + (4 * number if stage == 1 else -(-4 * number // 4))
    assert found.gathered_to_generate == (whole if stage == 3 else 0)


def test_a_reference_is_a_second_model_and_bases_count_once(tmp_path):
    make, base = maker()[0], make_model()
    agents = [make.make(Agent(name, base, peft_config=lora())) for name in "ab"]
    assert shared_weights(agents, Launch()) == agents[0].shared_bytes > 0
    assert shared_weights(agents, Launch(4, 3)) == -(-agents[0].shared_bytes // 4)
    one, two = (hold(agents[0], 0, Launch(), reference, True).weights for reference in (False, True))
    assert two == 2 * one == 2 * agents[0].own_bytes
