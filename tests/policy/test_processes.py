from accelerate import Accelerator

from trl_teamtr.policy import processes
from trl_teamtr.policy.processes import largest, union


def test_a_single_process_agrees_with_itself():
    """Several processes: tests/distributed/test_uneven_turns.py."""
    items = {"x"}
    assert union(Accelerator(), items) is items and union(Accelerator(), set()) == set()
    assert largest(Accelerator(), [3, 1]) == [3, 1] and largest(Accelerator(), []) == []


def test_the_largest_at_each_place_where_processes_have_unequally_many(monkeypatch):
    monkeypatch.setattr(processes, "gather_object", lambda own: [*own, [1, 5, 2], []])
    assert largest(Accelerator(), [3, 1]) == [3, 5, 2]
