"""Size and hash of every file of a checkpoint, which detect damage before anything is loaded from it."""

import hashlib
import json
import os
import re
import warnings
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object

from .run_state import RUN_STATE


MANIFEST = "manifest.json"


def write_manifest(folder: str, accelerator: Accelerator):
    """
    Flush every file of `folder` to disk, and write `manifest.json`. The processes share the work, on one file system.

    Args:
        folder (`str`): A folder to which every process has written its files.
        accelerator ([`~accelerate.Accelerator`]): The run's. All processes call this together.
    """
    files = _from_main([str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file()])
    share = sorted({*files} - {MANIFEST})[accelerator.process_index :: accelerator.num_processes]
    entries = gather_object([(name, *_measure(os.path.join(folder, name), flush=True)) for name in share])
    if accelerator.is_main_process:
        path = os.path.join(folder, MANIFEST)
        with open(path, "w", encoding="utf-8") as file:
            json.dump(
                {name: {"size": size, "sha256": sha256} for name, size, sha256 in sorted(entries)}, file, indent=1
            )
        flush(path)
        for directory, _, _ in os.walk(folder):
            flush(directory)


def verify(folder: str, accelerator: Accelerator):
    """
    Compare `folder` with its manifest. A checkpoint of an older version, without one, is accepted with a warning.

    Args:
        folder (`str`): A checkpoint.
        accelerator ([`~accelerate.Accelerator`]): The run's. All processes call this together.

    Raises:
        `ValueError`: On all processes, if a file is missing, truncated or altered.
    """
    if _from_main(not any(os.path.isfile(os.path.join(folder, name)) for name in (MANIFEST, RUN_STATE))):
        if accelerator.is_main_process:
            warnings.warn(
                f"{folder!r} has no {MANIFEST}, since an older version wrote it. Its files cannot be verified.",
                stacklevel=2,
            )
        return
    damage = find_damage(folder, accelerator)
    if not damage:
        return
    for other in _from_main(_other_checkpoints(folder)):
        if not find_damage(other, accelerator):
            advice = f"Resume from {other!r} instead: resume_from_checkpoint={other!r}."
            break
    else:
        advice = "The run directory holds no other checkpoint that is whole."
    raise ValueError(f"The checkpoint {folder!r} is damaged: {'; '.join(damage)}. {advice}")


def find_damage(folder: str, accelerator: Accelerator) -> list[str]:
    """Descriptions of the damaged files of `folder`, the same list on all processes."""
    try:
        with open(os.path.join(folder, MANIFEST), encoding="utf-8") as file:
            manifest, damage = json.load(file), []
    except (FileNotFoundError, ValueError) as error:
        manifest, damage = {}, [f"{MANIFEST} cannot be read ({type(error).__name__})"]
    share = sorted(manifest)[accelerator.process_index :: accelerator.num_processes]
    damage += [problem for name in share if (problem := _check(folder, name, manifest[name]))]
    return sorted(set(gather_object(damage)))


def _check(folder: str, name: str, entry: dict) -> str | None:
    path = os.path.join(folder, name)
    if not os.path.isfile(path):
        return f"{name} is missing"
    size = os.path.getsize(path)
    if size != entry["size"]:
        return f"{name} has {size} of {entry['size']} bytes"
    return None if _measure(path)[1] == entry["sha256"] else f"{name} has been altered"


def _other_checkpoints(folder: str) -> list[str]:
    """The other checkpoints of the same run that have a manifest, the newest first."""
    folder = os.path.abspath(folder)
    found = []
    for entry in os.scandir(os.path.dirname(folder)):
        match = re.fullmatch(r"checkpoint-(\d+)", entry.name)
        if match and entry.path != folder and os.path.isfile(os.path.join(entry.path, MANIFEST)):
            found.append((int(match[1]), entry.path))
    return [path for _, path in sorted(found, reverse=True)]


def _measure(path: str, flush: bool = False) -> tuple[int, str]:
    """Size and SHA-256 of a file, which is flushed to disk if `flush` is set."""
    size, digest = 0, hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            size += len(block)
            digest.update(block)
        if flush:
            os.fsync(file.fileno())
    return size, digest.hexdigest()


def flush(path: str):
    """Flush a file, or the names in a directory, to disk, so that it survives a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _from_main(value):
    """The main process's `value`, on all processes: another node may see changes of a shared disk later."""
    return broadcast_object_list([value])[0]
