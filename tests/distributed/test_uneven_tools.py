"""Processes with unequal numbers of calls of tools do not wait for each other for ever; nor where an environment cannot begin."""

import json

from launching import derive_config, launch
from run_tools import WATCHDOG
from tool_teams import tool_team


RUNS = 2  # `make soak` makes 100


def compare(folder, runs: int) -> dict[str, int]:
    """Make `runs` runs under ZeRO-3 with two processes; returns counts."""
    for agent in tool_team():
        agent.model.save_pretrained(folder / agent.name)
    launch(derive_config("zero3", folder), "run_tools.py", folder, folder, runs, timeout=WATCHDOG * (runs + 2))
    first, second = [json.loads((folder / f"tools-{rank}.json").read_text()) for rank in (0, 1)]
    for each in (first, second):
        assert len(each["found"]) == runs
        assert "An environment could not begin: OSError: no connection" in each["fault"]
    pairs = list(zip(first["found"], second["found"], strict=True))
    assert all(one["reports"] == other["reports"] for one, other in pairs)
    calls = [(one, other) for a, b in pairs for one, other in zip(a["calls"], b["calls"], strict=True)]
    return {
        "runs": runs,
        "hung": 0,
        "calls": sum(one[0] + other[0] for one, other in calls),
        "rollouts_with_unequal_iterations": sum(one[1] != other[1] for one, other in calls),
    }


def test_uneven_calls_under_zero3_hang_no_process(tmp_path):
    counts = compare(tmp_path, RUNS)
    assert counts["rollouts_with_unequal_iterations"] > 0 and counts["calls"] > RUNS
