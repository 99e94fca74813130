"""
What only a GPU can show, on one NVIDIA GPU, without internet or checkpoints: at most eight minutes.

    python benchmarks/gpu/check.py docs/results/gpu                          # all parts
    python benchmarks/gpu/check.py docs/results/gpu --parts floors stage     # some of them
    python benchmarks/gpu/check.py docs/results/gpu --model runs/SmolLM2-135M-Instruct   # measures its floor too
    python benchmarks/gpu/check.py runs/gpu --smoke                          # a CPU will do: says only that it runs

Models are made from the shapes of Qwen3, with random weights. Each part is a process of its own with a time limit of its own,
and writes PART.json into the folder, with the card and the versions; a part that fails or runs out of time says so there, and
the next one runs all the same. benchmarks/gpu/README.md says what each part is, and which packages it needs.

Prints one JSON object last: for each part, whether it ended, and its seconds.
"""

import argparse
import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path


os.environ["CI"] = "1"  # no telemetry
ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT)]  # the package need not be installed

# Seconds that each part may take
PARTS = {"moving": 130, "floors": 100, "stage": 140, "largest": 100}


def run_part(name: str, folder: Path, model: str | None, smoke: bool):
    """Run a part in this process, and write what it found."""
    from machine import describe_machine

    found = importlib.import_module(f"gpu.{name}").measure(model, smoke, folder)
    write(folder, name, {"machine": describe_machine(), "smoke": smoke, **found})


def write(folder: Path, name: str, found: dict):
    (folder / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")


def run_within(name: str, options) -> str:
    """Run a part in a process of its own. Returns how it ended, which is written down too unless it ended well."""
    command = [sys.executable, "-W", "ignore", __file__, str(options.folder), "--parts", name, "--here"]
    command += ["--model", options.model] if options.model else []
    log = options.folder / f"{name}.log"
    with log.open("w") as file:
        try:
            done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, timeout=PARTS[name])
        except subprocess.TimeoutExpired:
            end = f"ran out of its {PARTS[name]} s"
        else:
            end = "ended" if done.returncode == 0 else f"failed with status {done.returncode}"
    if end != "ended":
        path = options.folder / f"{name}.json"
        part = json.loads(path.read_text()) if path.exists() else {}  # what it had written by then
        write(options.folder, name, part | {"end": end, "log": log.read_text()[-4000:]})
    return end


def main(options):
    options.folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for name in options.parts:
        start = time.perf_counter()
        if options.here or options.smoke:
            run_part(name, options.folder, options.model, options.smoke)
            end = "ended"
        else:
            (options.folder / f"{name}.json").unlink(missing_ok=True)  # of an earlier run
            end = run_within(name, options)
        found[name] = {"end": end, "seconds": round(time.perf_counter() - start, 1)}
        print(f"{name}: {end}, {found[name]['seconds']} s", flush=True)
    print(json.dumps(found))


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the JSON files go")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="which of them")
    parser.add_argument("--model", help="directory of SmolLM2-135M-Instruct, where there is one")
    parser.add_argument("--smoke", action="store_true", help="small models, in this process: says only that it runs")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main(make_parser().parse_args())
