"""A few kills by SIGKILL, one for each phase of a run; tests/soak/kill_runs.py makes more of them."""

import json
import subprocess
import sys
from pathlib import Path


SCRIPT = Path(__file__).parent / "soak" / "kill_runs.py"


def test_killed_runs_equal_one_that_was_never_killed():
    command = [sys.executable, str(SCRIPT), "--kills", "5", "--quick"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-6000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["kills"] >= 5 and result["identical"] and result["finished_runs"] >= 1
    assert all(
        result["by_phase"][phase] for phase in ("rollout", "inner_step", "backtracking", "evaluation", "saving")
    )
