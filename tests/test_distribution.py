"""The wheel has all that is needed away from the source tree."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    source = tmp_path_factory.mktemp("source")
    shutil.copytree(ROOT / "trl_teamtr", source / "trl_teamtr", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", "dist", "."]
    subprocess.run(command, cwd=source, check=True, capture_output=True, timeout=120)
    (path,) = (source / "dist").glob("*.whl")
    return path


def test_every_file_of_the_package_is_in_it(wheel):
    there = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("trl_teamtr/")}
    files = {path for path in (ROOT / "trl_teamtr").rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert there == {path.relative_to(ROOT).as_posix() for path in files}


def test_it_is_used_without_the_source_tree(wheel, tmp_path):
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:  # what pip does with it
        archive.extractall(installed)
        (entry,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
        assert "trl-teamtr = trl_teamtr.cli.main:main" in archive.read(entry).decode()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "log.jsonl").write_text('{"reward": 0.5, "step": 1}\n')
    code = "import sys, trl_teamtr; from trl_teamtr.cli.main import main; print(trl_teamtr.__file__); main(['report', 'run'])"
    others = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path != str(ROOT)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(installed), *others])}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert str(installed) in done.stdout and (tmp_path / "run" / "report.html").is_file()
