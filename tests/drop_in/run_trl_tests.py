"""
TRL's own tests of GRPO, from a checkout of TRL, with `TeamTRTrainer` and `TeamTRConfig` in the place of `GRPOTrainer` and
`GRPOConfig`:

    python tests/drop_in/run_trl_tests.py path/to/trl

Each test is run with TRL's classes first: what fails here with them is no failure of a team. Models and datasets are made
locally (tiny_hub.py). Prints every test that fails, with its reason, and exits with status 1 if one fails for a reason
that is not documented (documented.py).
"""

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path


HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(HERE.parent)]
os.environ |= {"HF_HUB_OFFLINE": "1", "CI": "1", "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
os.environ |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}

import accelerate  # noqa: E402
import peft  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
import trl  # noqa: E402
from documented import why_documented  # noqa: E402
from tiny_hub import make_hub  # noqa: E402


def run(checkout: Path, folder: Path, swap: bool, options: argparse.Namespace) -> dict[str, dict[str, str]]:
    """
    Run the tests of `checkout` in a process of their own.

    Args:
        checkout (`Path`): Of TRL.
        folder (`Path`): With the models and datasets.
        swap (`bool`): Whether to put the classes of a team in the place of TRL's.
        options (`Namespace`): Those of the command.

    Returns:
        `dict` of each test's `outcome` and `reason`, by its name.
    """
    outcomes = folder / f"outcomes_{swap}.json"
    paths = [str(path) for path in (HERE, HERE.parent, ROOT)] + os.environ.get("PYTHONPATH", "").split(os.pathsep)
    places = {"HF_HUB_CACHE": str(folder / "hub"), "HF_MODULES_CACHE": str(folder / "modules")}
    places |= {"HF_DATASETS_CACHE": str(folder / "cache"), "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    command = [sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", "-p", "swapping"]
    command += ["--rootdir", str(checkout), "-c", str(checkout / "pyproject.toml"), "--outcomes", str(outcomes)]
    command += ["--datasets", str(folder / "datasets"), "--steps", str(options.steps), *(["--swap"] if swap else [])]
    command += ["-k", options.only] if options.only else []
    command += ["--basetemp", str(folder / "tests"), str(checkout / "tests" / "test_grpo_trainer.py")]
    log = folder / f"pytest_{swap}.txt"
    with open(log, "w", encoding="utf-8") as file:
        subprocess.run(command, cwd=folder, env=os.environ | places, stdout=file, stderr=subprocess.STDOUT)
    found = json.loads(outcomes.read_text()) if outcomes.is_file() else {}
    if not found:
        raise RuntimeError(f"No test was run:\n{log.read_text()[-3000:]}")
    return found


def judge(name: str, theirs: dict[str, str], ours: dict[str, str]) -> tuple[str, str]:
    """How test `name` counts that ended as `theirs` with TRL's classes and as `ours` with a team's, and why."""
    if ours["outcome"] in ("left out", "skipped"):
        return ours["outcome"], ours["reason"]
    if theirs["outcome"] == "failed":
        return "fails with TRL's own classes", theirs["reason"]
    if ours["outcome"] == "passed":
        return "passed", ""
    reason = why_documented(name, ours["reason"])
    return ("documented", reason) if reason is not None else ("FAILED", ours["reason"])


def report(theirs: dict[str, dict[str, str]], ours: dict[str, dict[str, str]]) -> bool:
    """Print how each test counts that did not pass. Returns whether none fails without a documented reason."""
    judged = {name: judge(name, theirs[name], outcome) for name, outcome in ours.items()}
    counts = Counter(kind for kind, _ in judged.values())
    for kind in ("FAILED", "documented", "fails with TRL's own classes"):
        for name, (found, reason) in judged.items():
            if found == kind:
                print(f"{kind}: {name}\n    {reason[:300]}")
    for kind in ("skipped", "left out"):
        for reason, count in Counter(why for found, why in judged.values() if found == kind).items():
            print(f"{kind}, {count} tests: {reason}")
    print(", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())))
    return counts["FAILED"] == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path, help="folder of TRL's repository")
    parser.add_argument("--only", help="run the tests whose names match, as pytest's -k")
    parser.add_argument("--steps", type=int, default=0, help="end runs that set no number of steps after so many")
    parser.add_argument("--keep", type=Path, help="folder in which to keep the models and pytest's output")
    options = parser.parse_args()
    checkout = options.checkout.resolve()
    if not (checkout / "tests" / "test_grpo_trainer.py").is_file():
        parser.error(f"{checkout} has no tests/test_grpo_trainer.py: pass a checkout of TRL's repository.")
    shown = [f"--{name} {value}" for name, value in (("only", options.only), ("steps", options.steps)) if value]
    print("$ python " + " ".join(["tests/drop_in/run_trl_tests.py path/to/trl", *shown]))
    print(f"TRL's tests at {(checkout / 'VERSION').read_text().strip()}")
    print(
        f"torch {torch.__version__}, trl {trl.__version__}, transformers {transformers.__version__}, peft "
        f"{peft.__version__}, accelerate {accelerate.__version__}, Python {platform.python_version()}",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep.resolve() if options.keep else Path(temporary)
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        with contextlib.redirect_stdout(sys.stderr):  # what transformers prints when it saves
            make_hub(folder / "hub", folder / "datasets", checkout)
        theirs, ours = (run(checkout, folder, swap, options) for swap in (False, True))
    sys.exit(0 if report(theirs, ours) else 1)


if __name__ == "__main__":
    main()
