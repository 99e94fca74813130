"""What must be equal, to the bit, in two runs of which one was killed and resumed many times."""

import json
import re
from pathlib import Path
from typing import Any

import torch


TIMINGS = {"step_time", "total_flos", "seconds/rollouts", "seconds/scoring", "seconds/update"} | {
    f"{split}_{name}" for split in ("train", "eval") for name in ("runtime", "samples_per_second", "steps_per_second")
}

# Files of a checkpoint that hold times or the path of the run. What else they hold is in the results
TIMED = {"training_args.json", "trainer_state.json", "teamtr_run.json"}


def find_differences(run: Path, reference: Path, processes: int) -> list[str]:
    """In words; an empty list if the two finished runs are the same."""
    found = []
    for rank in range(processes):
        ours, theirs = [torch.load(folder / f"result-{rank}.pt") for folder in (run, reference)]
        for result in (ours, theirs):
            result["log_history"] = [
                {key: value for key, value in log.items() if key not in TIMINGS} for log in result["log_history"]
            ]
        for key in theirs:
            if not _equal(ours[key], theirs[key]):
                found.append(f"process {rank}: {key}: {_describe(ours[key], theirs[key])}")
        ours, theirs = [read_record(folder / f"record-{rank}.jsonl") for folder in (run, reference)]
        if ours != theirs:
            updates = [number for number in sorted({*ours, *theirs}) if ours.get(number) != theirs.get(number)]
            found.append(f"process {rank}: prompts or transcripts of updates {updates}")
    ours, theirs = [sorted(path.name for path in (folder / "team").iterdir()) for folder in (run, reference)]
    if ours != theirs:
        found.append(f"files left: {ours} instead of {theirs}")
    return found + _compare_checkpoints(last_checkpoints(run)[0], last_checkpoints(reference)[0])


def read_record(path: Path) -> dict[int, dict]:
    """What the team was asked and said, by update; of an update that was made twice, the last."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return {line["update"]: line for line in lines}


def last_checkpoints(run: Path) -> list[Path]:
    """The checkpoints of a run, the newest first."""
    found = [path for path in (run / "team").glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    return sorted(found, key=lambda path: int(path.name.split("-")[1]), reverse=True)


def is_whole(checkpoint: Path) -> bool:
    """Whether all files are there; whether they have been altered is for the package to find out."""
    manifest = checkpoint / "manifest.json"
    return manifest.is_file() and all((checkpoint / name).is_file() for name in json.loads(manifest.read_text()))


def _compare_checkpoints(ours: Path, theirs: Path) -> list[str]:
    """Byte for byte, by their manifests: weights, optimizers, schedules and random states among them."""
    if ours.name != theirs.name:
        return [f"the last checkpoint is {ours.name} instead of {theirs.name}"]
    entries = [json.loads((folder / "manifest.json").read_text()) for folder in (ours, theirs)]
    names = sorted({name for manifest in entries for name in manifest if Path(name).name not in TIMED})
    different = [name for name in names if entries[0].get(name) != entries[1].get(name)]
    return [f"{ours.name}/{name}" for name in different if not _same_adapter_config(ours / name, theirs / name)]


def _same_adapter_config(ours: Path, theirs: Path) -> bool:
    """PEFT writes a set, `target_modules`, whose order is another one in each process."""
    if ours.name != "adapter_config.json":
        return False
    configs = [json.loads(path.read_text()) for path in (ours, theirs)]
    for config in configs:
        config["target_modules"].sort()
    return configs[0] == configs[1]


def _equal(ours: Any, theirs: Any) -> bool:
    if isinstance(theirs, torch.Tensor):
        return ours.dtype == theirs.dtype and torch.equal(ours, theirs)
    if isinstance(theirs, dict):
        return ours.keys() == theirs.keys() and all(_equal(ours[key], theirs[key]) for key in theirs)
    if isinstance(theirs, list):
        return len(ours) == len(theirs) and all(_equal(a, b) for a, b in zip(ours, theirs, strict=True))
    return ours == theirs or (ours != ours and theirs != theirs)  # NaN is NaN


def _describe(ours: Any, theirs: Any) -> str:
    if isinstance(theirs, dict):
        return "; ".join(f"{key} differs" for key in theirs if not _equal(ours.get(key), theirs[key]))
    if not isinstance(theirs, list) or len(ours) != len(theirs):
        return f"{len(ours)} entries instead of {len(theirs)}"
    index = next(i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if not _equal(a, b))
    a, b = ours[index], theirs[index]
    keys = sorted(key for key in {*a, *b} if not _equal(a.get(key), b.get(key)))
    return f"from entry {index} on, in {', '.join(f'{key} ({a.get(key)}, not {b.get(key)})' for key in keys)}"
