import json
import os
import shutil
import sys

import pytest
from accelerate import Accelerator

from trl_teamtr.runs.manifest import find_damage, verify, write_manifest


@pytest.fixture
def accelerator():
    return Accelerator(cpu=True)


@pytest.fixture
def checkpoint(tmp_path, accelerator):
    """The newest of three checkpoints."""
    for number in (2, 9, 10):
        folder = tmp_path / f"checkpoint-{number}"
        (folder / "x").mkdir(parents=True)
        (folder / "team.json").write_text("{}")
        (folder / "x" / "model.safetensors").write_bytes(bytes(range(200)))
        write_manifest(str(folder), accelerator)
    return folder


def test_manifest_names_size_and_hash_of_every_file(checkpoint, accelerator):
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    assert list(manifest) == ["team.json", "x/model.safetensors"]
    assert manifest["team.json"] == {
        "size": 2,
        "sha256": "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
    }
    verify(str(checkpoint), accelerator)


def cut_off(folder):
    (folder / "x" / "model.safetensors").write_bytes(bytes(range(100)))


def alter_one_byte(folder):
    (folder / "x" / "model.safetensors").write_bytes(bytes([*range(199), 0]))


def remove(folder):
    (folder / "team.json").unlink()


def cut_off_manifest(folder):
    (folder / "manifest.json").write_text('{"team.json": {"si')


DAMAGES = [
    (cut_off, "x/model.safetensors has 100 of 200 bytes"),
    (alter_one_byte, "x/model.safetensors has been altered"),
    (remove, "team.json is missing"),
    (cut_off_manifest, "manifest.json cannot be read"),
]


@pytest.mark.parametrize("damage, message", DAMAGES, ids=[damage.__name__ for damage, _ in DAMAGES])
def test_damage_is_named_and_the_newest_whole_checkpoint_offered(checkpoint, accelerator, damage, message):
    damage(checkpoint)
    alter_one_byte(checkpoint.parent / "checkpoint-9")
    with pytest.raises(
        ValueError, match=f"checkpoint-10' is damaged: {message}.*Resume from '.*checkpoint-2' instead"
    ):
        verify(str(checkpoint), accelerator)


def test_every_damaged_file_is_named(checkpoint, accelerator):
    cut_off(checkpoint)
    remove(checkpoint)
    assert find_damage(str(checkpoint), accelerator) == [
        "team.json is missing",
        "x/model.safetensors has 100 of 200 bytes",
    ]


def test_no_other_checkpoint_is_offered_where_none_is_whole(checkpoint, accelerator):
    remove(checkpoint)
    shutil.rmtree(checkpoint.parent / "checkpoint-2")
    (checkpoint.parent / "checkpoint-9" / "manifest.json").unlink()
    with pytest.raises(ValueError, match="holds no other checkpoint that is whole"):
        verify(f"{checkpoint}/", accelerator)


def test_checkpoint_of_an_older_version_is_accepted_with_a_warning(checkpoint, accelerator):
    (checkpoint / "manifest.json").unlink()
    with pytest.warns(UserWarning, match="has no manifest.json.*cannot be verified"):
        verify(str(checkpoint), accelerator)


@pytest.mark.skipif(sys.platform != "linux", reason="looks up the file behind a descriptor in /proc")
def test_every_file_and_directory_is_flushed_to_disk(checkpoint, accelerator, monkeypatch):
    flushed = set()
    monkeypatch.setattr(os, "fsync", lambda descriptor: flushed.add(os.readlink(f"/proc/self/fd/{descriptor}")))
    write_manifest(str(checkpoint), accelerator)
    assert flushed == {str(path) for path in [checkpoint, *checkpoint.rglob("*")]}


def test_checkpoint_that_has_lost_its_manifest_is_damaged(checkpoint, accelerator):
    (checkpoint / "manifest.json").unlink()
    (checkpoint / "teamtr_run.json").write_text("{}")
    with pytest.raises(ValueError, match="manifest.json cannot be read.*Resume from '.*checkpoint-9'"):
        verify(str(checkpoint), accelerator)


def test_the_processes_share_the_files(checkpoint):
    cut_off(checkpoint)
    shares = []
    for rank in range(2):
        process = type("Process", (), {"process_index": rank, "num_processes": 2})()
        shares.append(find_damage(str(checkpoint), process))
    assert shares == [[], ["x/model.safetensors has 100 of 200 bytes"]]
