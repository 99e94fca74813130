"""
A disk that really fills up: a run whose output directory is a small tmpfs, which must be mounted for it (needs root).

    python tests/soak/full_disk.py

The run must stop with an error that names the cause and the last checkpoint, which must be whole, leave no half one, and
go on from there once there is room. Prints one JSON object last.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path


HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent)]
os.environ |= {"HF_HUB_OFFLINE": "1", "CI": "1", "OMP_NUM_THREADS": "1"}

from accelerate import Accelerator  # noqa: E402
from tiny import make_team, make_trainer  # noqa: E402
from transformers.trainer_callback import PrinterCallback  # noqa: E402

from trl_teamtr.runs.manifest import find_damage  # noqa: E402


SETTINGS = {"num_stages": 10, "save_strategy": "steps", "save_steps": 1}


def make_quiet_trainer(run_dir: Path):
    trainer = make_trainer(run_dir, make_team(2), **SETTINGS)
    trainer.remove_callback(PrinterCallback)
    return trainer


def main(run_dir: Path):
    try:
        make_quiet_trainer(run_dir).train()
    except (OSError, RuntimeError) as error:
        message = str(error)
    else:
        raise SystemExit("The disk did not fill up.")
    print(message.replace(str(run_dir), "run"))
    names = sorted((path.name for path in run_dir.glob("*checkpoint*")), key=lambda name: int(name.split("-")[-1]))
    last, damage = names[-1], find_damage(str(run_dir / names[-1]), Accelerator(cpu=True))
    assert not damage and not [name for name in names if name.startswith("tmp")], (names, damage)
    assert last in message and "MiB left" in message
    subprocess.run(["mount", "-o", "remount,size=64m", str(run_dir)], check=True)
    trainer = make_quiet_trainer(run_dir)
    trainer.train(resume_from_checkpoint=True)
    print(json.dumps({"stopped_after": last, "whole": True, "resumed_to": trainer.state.global_step}))


if __name__ == "__main__":
    print("$ python tests/soak/full_disk.py")
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=True)
        try:
            main(Path(folder))
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)
