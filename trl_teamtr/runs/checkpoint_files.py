"""Writes a checkpoint to disk atomically: whole, or not at all."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from accelerate import Accelerator
from transformers import TrainerState, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint, sort_checkpoints

from ..agents.agent_folders import REPLACED
from .manifest import flush, write_manifest


REMOVED = "tmp-removed-"  # prefix of a checkpoint's name while it is deleted


def put_checkpoint(
    final: str, write: Callable[[str], None], args: TrainingArguments, state: TrainerState, accelerator: Accelerator
):
    """
    Let `write` fill a folder, and rename it to `final` when it is whole, so that neither a kill nor a full disk leaves
    half a checkpoint. Then delete the oldest ones beyond `save_total_limit`.

    Args:
        final (`str`): The checkpoint's path.
        write (`Callable[[str], None]`): Writes the checkpoint's files to the given folder.
        args ([`~transformers.TrainingArguments`]): The run's.
        state ([`~transformers.TrainerState`]): The run's. Its best checkpoint is never deleted.
        accelerator ([`~accelerate.Accelerator`]): Every process calls this together.

    Raises:
        `OSError` or `RuntimeError`: If it cannot be written. The incomplete one is deleted, and the last one is whole.
    """
    run_dir, name = os.path.split(final)
    folder = os.path.join(run_dir, f"tmp-{name}")
    if args.should_save:
        shutil.rmtree(folder, ignore_errors=True)
    accelerator.wait_for_everyone()
    try:
        write(folder)
        accelerator.wait_for_everyone()
        write_manifest(folder, accelerator)
    except Exception as error:
        message = _describe_failure(run_dir, final, error)
        if args.should_save:
            shutil.rmtree(folder, ignore_errors=True)
        raise (OSError if isinstance(error, OSError) else RuntimeError)(message) from error
    if args.should_save:
        put_in_place(folder, final)
        _rotate(run_dir, args.save_total_limit, state.best_model_checkpoint)
    accelerator.wait_for_everyone()


def _describe_failure(run_dir: str, final: str, error: Exception) -> str:
    free = shutil.disk_usage(run_dir).free / 2**20
    last = get_last_checkpoint(run_dir)
    return (
        f"The checkpoint {final!r} could not be written: {type(error).__name__}: {error}. The disk of {run_dir!r} had "
        f"{free:.0f} MiB left; `save_total_limit` bounds the number of checkpoints, `save_only_model` their size. "
        + (f"The last whole checkpoint is {last!r}." if last else "There is no earlier checkpoint.")
    )


def put_in_place(folder: str, final: str):
    """Rename; a checkpoint of the same number is moved aside first and deleted last, so that one of them exists."""
    run_dir, name = os.path.split(final)
    aside = os.path.join(run_dir, f"{REPLACED}{name}")
    if os.path.isdir(final):
        shutil.rmtree(aside, ignore_errors=True)
        os.rename(final, aside)
    os.rename(folder, final)
    flush(run_dir)
    shutil.rmtree(aside, ignore_errors=True)


def _rotate(run_dir: str, limit: int | None, best: str | None):
    """
    Delete the oldest checkpoints beyond `limit`, never the last or the best one, as `rotate_checkpoints` does. That
    function deletes a checkpoint under its own name. If it is killed, a part of the checkpoint is left. This part was
    modified last, so the next rotation counts it as the newest, and keeps it in place of a whole one.
    """
    checkpoints = sort_checkpoints(run_dir, use_mtime=True)
    kept = {checkpoints[-1], *([str(Path(best))] if best is not None else [])}
    surplus = len(checkpoints) - max(limit, len(kept)) if limit is not None and limit > 0 else 0
    for path in [path for path in checkpoints if path not in kept][: max(surplus, 0)]:
        aside = os.path.join(run_dir, f"{REMOVED}{os.path.basename(path)}")
        shutil.rmtree(aside, ignore_errors=True)
        os.rename(path, aside)
        shutil.rmtree(aside, ignore_errors=True)


def recover(run_dir: str):
    """Clean up after a run that was killed while it saved: a checkpoint that was moved aside is renamed back."""
    if not os.path.isdir(run_dir):
        return
    for name in os.listdir(run_dir):
        if not re.fullmatch(r"tmp-((replaced|removed)-)?checkpoint-\d+", name):
            continue
        path, final = os.path.join(run_dir, name), os.path.join(run_dir, name.removeprefix(REPLACED))
        if name.startswith(REPLACED) and not os.path.isdir(final):
            os.rename(path, final)
        else:
            shutil.rmtree(path)
