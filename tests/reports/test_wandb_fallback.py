import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest


pytest.importorskip("wandb")


def test_run_goes_on_and_keeps_its_logs_where_the_server_cannot_be_reached(tmp_path):
    """In a process of its own, since W&B keeps state. Nothing listens on port 9 of this machine."""
    script = tmp_path / "run.py"
    script.write_text(
        textwrap.dedent("""
            import json, os
            import wandb
            from tiny import make_team, make_trainer

            trainer = make_trainer("run", make_team(1), report_to="wandb", num_stages=2)
            trainer.train()
            run = wandb.run
            logged = {"step": trainer.state.global_step, "mode": run.settings.mode, "file": run.settings.sync_file}
            logged["reward"] = run.summary["train/reward"]
            wandb.finish()
            with open("logged.json", "w") as file:
                json.dump(logged | {"size": os.path.getsize(logged["file"])}, file)
        """)
    )
    environment = os.environ | {
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "OMP_NUM_THREADS": "1",
        "WANDB_MODE": "online",
        "WANDB_BASE_URL": "http://127.0.0.1:9",
        "WANDB_API_KEY": "0123456789" * 4,
        "WANDB_INIT_TIMEOUT": "1",
        "WANDB_DIR": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    logged = json.loads((tmp_path / "logged.json").read_text())
    assert logged["step"] == 2 and logged["mode"] == "offline" and logged["size"] > 0
    assert isinstance(logged["reward"], float) and logged["file"].startswith(str(tmp_path))
    assert "W&B cannot be reached" in done.stderr and f"wandb sync {os.path.dirname(logged['file'])}" in done.stderr
