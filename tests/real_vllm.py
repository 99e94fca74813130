"""Real vLLM servers on the CPU, started by `scripts/serve_vllm.sh`. They run in an environment of their own."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import yaml
from accelerate import PartialState

from trl_teamtr.policy.generation.client import ServerClient


# Set by `make test-vllm`; without it the tests of tests/on_vllm are deselected
PYTHON = os.environ.get("TEAM_VLLM_PYTHON")
SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "serve_vllm.sh"

# Seconds for a server to start, and for an answer
TIMEOUT = 600.0

# Shapes that vLLM's kernels for the CPU have: their heads begin at 32
SHAPES = {"hidden_size": 64, "intermediate_size": 64, "head_dim": 32, "initializer_range": 0.2}
# Adapters as `lora_team` of vllm_teams.py makes them
PEFT = {"r": 2, "target_modules": ["q_proj", "v_proj", "o_proj"]}

# GiB of keys and values, and no compilation: the first request would take most of a minute
ENVIRONMENT = {"VLLM_CPU_KVCACHE_SPACE": "1", "TORCHDYNAMO_DISABLE": "1", "VLLM_NO_USAGE_STATS": "1"}
ENVIRONMENT |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}

# The smallest prefixes that are cached have a block. vLLM 0.32 takes back a random number where it splits a prompt of a request
# with a seed, which a generator of a CPU cannot do: the engine would die ("CPU Generator does not use offset")
FLAGS = ("--enforce-eager", "--block-size", "32", "--no-enable-chunked-prefill")


def free_url() -> str:
    """The address of a server that may be started here."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def write_team(path: Path, agents: list[dict], url: str) -> Path:
    """The YAML file of a team whose server is at `url`, as for scripts/train.py."""
    fields = {"agents": agents, "output_dir": "unused", "vllm_server_base_url": url, "report_to": "none"}
    path.write_text(yaml.safe_dump(fields | {"use_cpu": True, "bf16": False, "gradient_checkpointing": False}))
    return path


class RealServer:
    """
    A server of a team.

    Args:
        team: The YAML file of the team.
        url: Where the server is.
        log: The file of its output.
    """

    def __init__(self, team: Path, url: str, log: Path):
        self.url, self._team, self._log, self.starts = url, team, log, 0
        self._process: subprocess.Popen | None = None

    @property
    def pid(self) -> int:
        """Of the process that was started; the engine is a child of it."""
        assert self._process is not None
        return self._process.pid

    def start(self):
        """Start it, which takes a minute or two; [`ServerClient`] waits until it is ready."""
        self.starts += 1
        own = {"PYTHON": sys.executable, "SERVE": f"{PYTHON} -m vllm.entrypoints.openai.api_server --model"}
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(
                ["bash", str(SCRIPT), str(self._team), self.url, *FLAGS],
                env=os.environ | ENVIRONMENT | own,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def kill(self):
        """Kill the server and its engine, which outlives it otherwise."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def restart_after(self, seconds: float):
        """Kill it now, and start it again with the same flags after `seconds`."""
        self.kill()
        timer = threading.Timer(seconds, self.start)
        timer.daemon = True
        timer.start()


@contextlib.contextmanager
def real_serving(*servers: RealServer) -> Iterator[None]:
    """Context in which the servers are up, which are started all at once; they are killed at its end."""
    PartialState()  # which TRL's client logs by
    try:
        for server in servers:
            server.start()
        for server in servers:
            ServerClient(server.url, TIMEOUT).wait_for_server_ready()
        yield
    finally:
        for server in servers:
            server.kill()
