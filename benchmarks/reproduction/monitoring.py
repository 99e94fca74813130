"""
Monitoring the KL on a part of the messages (paper: half of them flips 2.4 % of the decisions near the threshold); and
what the diagnostics cost.

At each update the KL of the step is measured on all messages, exactly and by k3, and on random 25 and 50 % of them.
"""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np

from .cell import Cell, make_trainer, prepare_team, shrink, write_whole
from .statistics import interval, show, write_csv


AGENTS, PROMPTS, SHARES, DRAWS = 3, 24, (0.25, 0.5, 1.0), 20


def cells(seeds: range, size: str) -> list[Cell]:
    return shrink(
        [Cell("full", AGENTS, PROMPTS, seed, {"full": 10, "quick": 2, "smoke": 1}[size]) for seed in seeds], size
    )


def path_of(cell: Cell, folder: Path) -> Path:
    return folder / f"monitoring_{cell.name}.json"


def run_cell(cell: Cell, folder: Path):
    """Train once, and look at the KL of every proposal by parts of its messages."""
    import torch

    from trl_teamtr.maths.kl import k3_kl
    from trl_teamtr.policy.scoring import loss_mask
    from trl_teamtr.trust_region.policy_kl import exact_token_kl

    trainer, found = make_trainer(cell, prepare_team(cell.seed, folder, cell.size), folder / "trainer"), []
    rng = random.Random(cell.seed)

    def watch(member):
        measure = member.measure_kl

        def watched(batches, snapshot, estimator=None):
            value = measure(batches, snapshot, estimator)
            (batch,) = batches
            with torch.no_grad():
                exact = exact_token_kl(member.speaker.policy, batch, snapshot, member.temperature) * loss_mask(batch)
                new_logps = member.speaker.token_logps(batch, member.args.per_device_train_batch_size)
                k3 = k3_kl(batch["old_per_token_logps"], new_logps) * loss_mask(batch)
            rows = {"exact": exact.sum(dim=1).tolist(), "k3": k3.sum(dim=1).tolist()}
            entry = {"exact": value, "radius": member.radius}
            for kind, values in rows.items():
                for share in SHARES:
                    size = round(share * len(values))
                    entry[f"{kind}_{share}"] = [float(np.mean(rng.sample(values, size))) for _ in range(DRAWS)]
            found.append(entry)
            return value

        member.measure_kl = watched

    for member in trainer.members:
        watch(member)
    trainer.train()
    write_whole(path_of(cell, folder), found)


def report(folder: Path, seeds: range, size: str) -> dict[str, Any]:
    runs = [json.loads(p.read_text()) for cell in cells(seeds, size) if (p := path_of(cell, folder)).exists()]
    found: dict[str, Any] = {}
    count = sum(map(len, runs))
    print(
        f"\nKL on a share of the messages against the exact KL on all of them: {count} measurements of {len(runs)} seeds, "
        f"{DRAWS} draws each; near the threshold: exact KL between half the radius and twice the radius"
    )
    rows = []
    for kind in ("exact", "k3"):
        for share in SHARES:
            errors, flips, near = [], [], []
            for run in runs:
                value = [(e["exact"], e["radius"], d) for e in run for d in e[f"{kind}_{share}"]]
                errors.append(float(np.mean([abs(d - exact) / exact for exact, _, d in value if exact > 0])))
                flips.append(float(np.mean([(d > r) != (exact > r) for exact, r, d in value])))
                close = [(d > r) != (exact > r) for exact, r, d in value if r / 2 < exact < 2 * r]
                near += [float(np.mean(close))] if close else []
            texts = f"relative error {show(interval(errors))}, decisions flipped {show(interval(flips))}"
            texts += f", near the threshold {show(interval(near))}" if near else ""
            print(f"{kind:<6} on {share:4.0%}: {texts}")
            found[f"{kind}_{share}"] = {
                "error": round(float(np.mean(errors)), 4),
                "flips": round(float(np.mean(flips)), 4),
            }
            rows.append(
                {
                    "kl": kind,
                    "share": share,
                    "error": np.mean(errors),
                    "flips": np.mean(flips),
                    "flips_near": np.mean(near) if near else None,
                }
            )
    write_csv(folder / "monitoring.csv", rows)
    return found
