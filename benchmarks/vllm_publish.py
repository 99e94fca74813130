"""
What one publication of a LoRA adapter to a vLLM server costs, and what many leave behind.

    TEAM_VLLM_PYTHON=.venv-vllm/bin/python python benchmarks/vllm_publish.py            # a real server: ten minutes
    TEAM_VLLM_PYTHON=.venv-vllm/bin/python python benchmarks/vllm_publish.py --quick    # a quarter of the publications
    python benchmarks/vllm_publish.py --smoke                                           # a fake one: says only that it runs

`make test-vllm` makes the environment of the server, which runs on the CPU of this machine. Three LoRA agents of rank 2 are on one
tiny model (one layer of width 64). The script prints:

- seconds of one publication: the adapter is written, loaded, the version before it unloaded, and the one before that deleted.
  Median and largest; and of its parts the call that loads, and the call that unloads;
- adapters that the server knows, those that its engine has in memory (some may be unloaded and not yet forgotten), and folders of
  adapters, after each publication of a team of three that takes turns with being updated, where all three speak after each:
  the most of them;
- memory of the server with its engine (resident, of all its processes), along these publications.

Prints a table, and one JSON object last.
"""

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path


os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["CI"] = "1"  # no telemetry
os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import psutil  # noqa: E402
import requests  # noqa: E402
from fake_vllm import serving  # noqa: E402
from machine import describe_machine  # noqa: E402
from real_vllm import PEFT, PYTHON, SHAPES, TIMEOUT, RealServer, free_url, real_serving, write_team  # noqa: E402
from size import add_size  # noqa: E402
from vllm_teams import lora_team, make_fleet, save_base, speakers_of  # noqa: E402

from trl_teamtr.policy.backend import Request  # noqa: E402
from trl_teamtr.policy.generation.client import ServerClient  # noqa: E402
from trl_teamtr.policy.generation.served import ServedAdapter  # noqa: E402
from trl_teamtr.policy.generation.versions import Versions  # noqa: E402


NAMES = "xyz"
# Publications that are timed, and of the team
COUNTS = {"full": (50, 200), "quick": (12, 50), "smoke": (3, 6)}


class TimedClient(ServerClient):
    """Keeps the seconds of each call that loads or unloads."""

    def __init__(self, *args):
        super().__init__(*args)
        self.seconds: dict[str, list[float]] = {"load": [], "unload": []}

    def load_lora_adapter(self, *args, **kwargs):
        with timing(self.seconds["load"]):
            super().load_lora_adapter(*args, **kwargs)

    def unload_lora_adapter(self, *args, **kwargs):
        with timing(self.seconds["unload"]):
            super().unload_lora_adapter(*args, **kwargs)


@contextlib.contextmanager
def timing(seconds: list[float]) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds.append(time.perf_counter() - start)


@contextlib.contextmanager
def server_for(base: str, folder: Path, smoke: bool) -> Iterator[tuple[str, Callable[[], float]]]:
    """The URL of a server, and what tells its memory in MiB."""
    if smoke:
        with serving(base) as server:
            yield server.url, lambda: psutil.Process().memory_info().rss / 2**20
        return
    if PYTHON is None:
        raise SystemExit(
            "Set TEAM_VLLM_PYTHON to a Python that has vLLM (`make test-vllm` makes one), or pass --smoke."
        )
    url = free_url()
    agents = [{"name": name, "model": base, "peft": PEFT} for name in NAMES]
    server = RealServer(write_team(folder / "team.yaml", agents, url), url, folder / "server.log")
    with real_serving(server):

        def memory() -> float:
            main = psutil.Process(server.pid)
            return sum(each.memory_info().rss for each in [main, *main.children(recursive=True)]) / 2**20

        yield server.url, memory


def time_publications(speaker, url: str, folder: Path, count: int) -> dict[str, list[float]]:
    """Seconds of `count` publications of one agent, and of their parts; the first one is left out."""
    client, whole = TimedClient(url, TIMEOUT), list[float]()
    served = ServedAdapter(speaker, client, Versions(str(folder), "cost", speaker.name))
    for _ in range(count + 1):
        with timing(whole):
            served.publish()
    served.withdraw(from_server=True)
    return {
        "publication": whole[1:],
        "loading": client.seconds["load"][1:],
        "unloading": client.seconds["unload"][:-1],
    }


def follow_team(speakers, url: str, folder: Path, count: int, memory: Callable[[], float]) -> dict[str, list]:
    """What the server holds after each of `count` publications of a team, all of whose agents then speak."""
    fleet = make_fleet(speakers, url, folder, timeout=TIMEOUT, max_logp_difference=None)
    requests_of_all = [Request(speaker.name, [2, 0], 2) for speaker in speakers]
    fleet.generate(requests_of_all)
    found = {"adapters": [], "in the engine": [], "folders": [], "MiB": []}
    for number in range(count):
        fleet.publish(speakers[number % len(speakers)].name)
        fleet.generate(requests_of_all)
        models = requests.get(f"{url}/v1/models", timeout=60).json()["data"]
        found["adapters"].append(len(models) - 1)  # and the model itself
        answer = requests.post(f"{url}/collective_rpc", json={"method": "list_loras"}, timeout=60)
        found["in the engine"].append(len(answer.json()["results"][0]))
        found["folders"].append(len(os.listdir(folder)))
        found["MiB"].append(memory())
    fleet.close()
    return found


def main(options):
    timed, published = COUNTS[options.size]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base = save_base(folder / "base", size=4, **SHAPES)
        speakers = speakers_of(lora_team(base, NAMES))
        with server_for(base, folder, options.size == "smoke") as (url, memory):
            version = requests.get(f"{url}/version", timeout=60).json()["version"]
            seconds = time_publications(speakers[0], url, folder / "cost", timed)
            found = follow_team(speakers, url, folder / "sync", published, memory)
    print(f"{timed} publications of one adapter, milliseconds")
    for part, values in seconds.items():
        print(f"  {part:<12} median {1e3 * statistics.median(values):7.1f}   largest {1e3 * max(values):7.1f}")
    print(f"{published} publications of a team of {len(NAMES)}")
    for what in ("adapters", "in the engine", "folders"):
        first, most, last = max(found[what][:50]), max(found[what]), found[what][-1]
        print(f"  {what:<13} at most {first} in the first 50, {most} in all; at the end {last}")
    marks = sorted({max(1, published * part // 4) for part in range(1, 5)} | {1})
    print("  memory of the server, MiB  " + "   ".join(f"after {n}: {found['MiB'][n - 1]:.0f}" for n in marks))
    print(f"server: vLLM {version}; trainer: {describe_machine()}")
    result = {part: round(1e3 * statistics.median(values), 1) for part, values in seconds.items()}
    result |= {what: max(found[what]) for what in ("adapters", "in the engine", "folders")} | {"size": options.size}
    print(json.dumps(result | {"MiB": [round(found["MiB"][n - 1]) for n in marks]}))


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_size(parser)
    return parser


if __name__ == "__main__":
    main(make_parser().parse_args())
