"""
Train a team and report the results: transcripts and held-out accuracy before and after, a plot, one line of JSON.

    make quickstart                                    # a team of three tiny agents on LINK, about two minutes
    python scripts/quickstart.py --seed 1 --report_dir runs/quickstart_seed1
    make demo                                          # two LoRA agents on SmolLM2-135M-Instruct, about an hour

The training is that of `train.py` with the same YAML file. Around it, this script evaluates, and measures the exact KL
of each update on rollouts that it was not trained on.
"""

import os
from pathlib import Path


# Set before torch is imported; more threads than cores slow each other down.
os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count() or 1))

from trl_teamtr.cli.quickstart import main, parse  # noqa: E402


if __name__ == "__main__":
    main(*parse(Path(__file__).parents[1] / "examples" / "quickstart.yaml"))
