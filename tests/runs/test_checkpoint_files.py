"""How a checkpoint gets to its place, and what is left of one that does not."""

import os

import pytest
from accelerate import Accelerator
from transformers import TrainerState, TrainingArguments

from trl_teamtr.runs.checkpoint_files import put_checkpoint, recover
from trl_teamtr.runs.manifest import find_damage


def put(folder, write, number=1, **fields):
    args = TrainingArguments(str(folder), use_cpu=True, report_to="none", **fields)
    put_checkpoint(str(folder / f"checkpoint-{number}"), write, args, TrainerState(), Accelerator())


def write(folder):
    os.makedirs(folder)
    with open(os.path.join(folder, "weights"), "w") as file:
        file.write(folder)


def test_what_is_written_is_put_in_place_with_a_manifest(tmp_path):
    for number in (1, 2, 3):
        put(tmp_path, write, number, save_total_limit=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-2", "checkpoint-3"]
    assert find_damage(str(tmp_path / "checkpoint-3"), Accelerator()) == []


def test_what_fails_leaves_nothing_and_names_the_last_whole_one(tmp_path):
    put(tmp_path, write)

    def fail(folder):
        write(folder)
        raise OSError("no space left")

    with pytest.raises(OSError, match="checkpoint-2' could not be written: OSError: no space left.*checkpoint-1'"):
        put(tmp_path, fail, number=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-1"]


def test_recovery_leaves_everything_else_alone(tmp_path):
    names = ["tmp-notes", "tmp-checkpoint", "checkpoint-3", "tmp-checkpoint-3-mine", "x"]
    for name in names:
        (tmp_path / name).mkdir()
    recover(str(tmp_path))
    recover(str(tmp_path / "missing"))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
