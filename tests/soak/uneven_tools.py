"""
Many runs in which two processes under ZeRO-3 have unequal numbers of calls of tools, with a watchdog of 60 seconds for each run, and
an environment that cannot begin on one of them:

    python tests/soak/uneven_tools.py --runs 100

Prints one JSON object last. A run that hangs, or differs between the processes, ends the script with an error.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
from pathlib import Path


HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "distributed")]
os.environ |= {"HF_HUB_OFFLINE": "1", "CI": "1", "OMP_NUM_THREADS": "1"}

import accelerate  # noqa: E402
import deepspeed  # noqa: E402
import torch  # noqa: E402
import trl  # noqa: E402
from test_uneven_tools import compare  # noqa: E402


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100)
    options = parser.parse_args()
    print("$ python " + " ".join(["tests/soak/uneven_tools.py", *sys.argv[1:]]))
    print(
        f"torch {torch.__version__}, trl {trl.__version__}, deepspeed {deepspeed.__version__}, accelerate "
        f"{accelerate.__version__}, Python {platform.python_version()}, {os.cpu_count()} cores, no GPU"
    )
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(compare(Path(folder), options.runs)))
