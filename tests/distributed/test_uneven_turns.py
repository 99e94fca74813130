"""Processes with unequal numbers of turns do not wait for each other for ever, and learn what one process learns."""

import json

import pytest
from launching import derive_config, launch
from run_uneven import WATCHDOG, run
from teams import save_models


RUNS = 4  # `make soak` makes 100


def compare(folder, runs: int) -> dict[str, int]:
    """Make `runs` runs under ZeRO-3 with two processes and on one process, and compare them; returns counts."""
    save_models(folder)
    config = derive_config("zero3", folder)
    launch(config, "run_uneven.py", folder, folder, runs, timeout=WATCHDOG * (runs + 2))
    ours = [json.loads((folder / f"uneven-{rank}.json").read_text()) for rank in (0, 1)]
    alone = run(folder, folder / "alone", num_processes=1, runs=runs)
    assert len(alone) == len(ours[0]) == len(ours[1]) == runs
    for first, second, one in zip(*ours, alone, strict=True):
        assert first["transcripts"] + second["transcripts"] == one["transcripts"]
        assert first["reports"] == second["reports"]
        for report, expected in zip(first["reports"], one["reports"], strict=True):
            assert report == pytest.approx(expected, rel=5e-3, abs=1e-6)
        assert first["norms"] == pytest.approx(one["norms"], rel=1e-5)
    idle = [sum(not any(found["transcripts"]) for found in process) for process in ours]
    messages = sum(len(rollout) for found in alone for rollout in found["transcripts"])
    return {
        "runs": runs,
        "hung": 0,
        "equal_to_one_process": runs,
        "idle_process_runs": sum(idle),
        "messages": messages,
    }


def test_uneven_turns_under_zero3_equal_one_process(tmp_path):
    counts = compare(tmp_path, RUNS)
    assert counts["idle_process_runs"] >= RUNS // 4  # the second process really had nothing to do
