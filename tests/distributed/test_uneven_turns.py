"""
Processes with unequal numbers of turns do not wait for each other for ever, and learn what one process learns.

`make soak` sets TEAMTR_UNEVEN_RUNS to 100.
"""

import json
import os

import pytest
from launching import derive_config, launch
from run_uneven import run
from teams import save_models


RUNS = int(os.environ.get("TEAMTR_UNEVEN_RUNS", "12"))


def test_uneven_turns_under_zero3_equal_one_process(tmp_path):
    save_models(tmp_path)
    launch(derive_config("zero3", tmp_path), "run_uneven.py", tmp_path, tmp_path, RUNS, timeout=60 * RUNS + 60)
    ours = [json.loads((tmp_path / f"uneven-{rank}.json").read_text()) for rank in (0, 1)]
    alone = run(tmp_path, tmp_path / "alone", num_processes=1, runs=RUNS)
    assert len(alone) == RUNS
    for first, second, one in zip(*ours, alone, strict=True):
        assert first["transcripts"] + second["transcripts"] == one["transcripts"]
        assert first["reports"] == second["reports"]
        for report, expected in zip(first["reports"], one["reports"], strict=True):
            assert report == pytest.approx(expected, rel=5e-3, abs=1e-6)
        assert first["norms"] == pytest.approx(one["norms"], rel=1e-5)
    silent = [found for found in ours[1] if not any(found["transcripts"])]
    assert len(silent) >= RUNS // 4  # the second process really had nothing to do
