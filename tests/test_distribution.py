"""The wheel has all that is needed away from the source tree."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
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
    assert (
        "pip wheel --quiet --disable-pip-version-check --no-deps" in (ROOT / "Makefile").read_text()
    )  # as `make dist`
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


def test_a_fresh_environment_installs_it_and_runs_the_quickstart(wheel, tmp_path):
    """With the packages of this environment in place of those that pip would download."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "env"], check=True, timeout=300)
    paths = {"base": str(tmp_path / "env"), "platbase": str(tmp_path / "env")}
    there = Path(sysconfig.get_path("purelib", scheme="venv", vars=paths))
    # A path of a .pth file does not read the .pth files there, so that this source tree is not found
    (there / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def run(*command, seconds=600):
        command = [tmp_path / "env" / "bin" / command[0], *command[1:]]
        options = {"cwd": tmp_path, "env": environment | {"PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}}
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, **options)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    # `--no-index`: all that it requires must be found
    run("python", "-m", "pip", "install", "--no-index", "--quiet", f"{wheel}[quickstart]")
    assert str(there) in run("python", "-c", "import trl_teamtr; print(trl_teamtr.__file__)")
    small = ["--agents", "link:2", "--dataset_name", "link:2", "--num_stages", "2", "--eval_steps", "3"]
    small += ["--per_device_train_batch_size", "64", "--num_iterations", "2", "--num_heldout", "32"]
    result = json.loads(run("trl-teamtr", "quickstart", *small).splitlines()[-1])
    assert result["updates"] == 4 and 0 < result["kl_mean"] <= result["radius"] == 0.2
    made = {path.name for path in (tmp_path / "runs" / "quickstart").iterdir()}
    assert {"team.json", "a", "b", "log.jsonl", "transcripts.jsonl", "report.html", "report"} <= made
    said = run("trl-teamtr", "chat", "runs/quickstart", "--once", "?", "--private", "a=3", "--transcript")
    assert [line[:3] for line in said.splitlines()[-2:]] == ["a: ", "b: "]  # after what libraries print
