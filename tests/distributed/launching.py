"""Two processes on the CPU, launched by `accelerate launch` with the configs that are shipped."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import yaml


HERE = Path(__file__).parent
CONFIGS = HERE.parents[1] / "accelerate_configs"


def derive_config(name: str, folder: Path, **changes) -> Path:
    """The shipped config `name` for two processes without a GPU, in `folder`."""
    config = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    config |= {"use_cpu": True, "num_processes": 2, "num_machines": 1, "mixed_precision": "no", **changes}
    config.pop("gpu_ids", None)
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def launch_command(config: Path, script: Path, *arguments: str, port: int | None = None, **options) -> list[str]:
    options = {"config_file": config, "main_process_port": port or free_port()} | options
    flags = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    return [sys.executable, "-m", "accelerate.commands.launch", *flags, str(script), *map(str, arguments)]


def environment(**variables) -> dict[str, str]:
    # The tree of these tests, which need not be the installed one
    tests = os.pathsep.join([str(HERE), str(HERE.parent), str(HERE.parents[1])])
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": tests, "GLOO_SOCKET_IFNAME": "lo"} | variables


def launch(config: Path, script: str, *arguments: str, timeout: int = 300) -> str:
    """Run `script` of this folder on two processes; returns what it printed, and raises if it failed."""
    done = subprocess.run(
        launch_command(config, HERE / script, *arguments),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, f"{script} failed:\n{done.stdout[-6000:]}"
    return done.stdout
