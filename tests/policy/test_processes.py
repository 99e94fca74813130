from accelerate import Accelerator

from trl_teamtr.policy.processes import largest, union


def test_a_single_process_agrees_with_itself():
    """Several processes: tests/distributed/test_uneven_turns.py."""
    items = {"x"}
    assert union(Accelerator(), items) is items and union(Accelerator(), set()) == set()
    assert largest(Accelerator(), 3) == 3 and largest(Accelerator(), 0) == 0
