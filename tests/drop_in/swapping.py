"""
A pytest plugin for TRL's own tests: resolves the datasets they name to local files, leaves out the kinds of tests that
cannot run here, writes down how each test ended, and on demand swaps TRL's trainer and config for those of a team.
"""

import ast
import json
import os
from pathlib import Path

import pytest
import trl  # before pytest puts the checkout, with a package of the same name, in front of `sys.path`
from datasets import load_dataset
from documented import left_out
from tiny_hub import PLAIN_COMMIT, WIDE, WIDE_COMMIT, set_revision
from trl import import_utils
from trl.trainer.base_config import _BaseConfig

from trl_teamtr import TeamTRConfig, TeamTRTrainer


# They write down ids of the real vocabulary, or count on never sampling an end of sequence
NEEDS_WIDE = ("test_train_with_mask_truncated_completions",)


def pytest_addoption(parser):
    group = parser.getgroup("drop-in")
    group.addoption("--swap", action="store_true", help="put TeamTRTrainer in the place of GRPOTrainer")
    group.addoption("--outcomes", help="JSON file to write")
    group.addoption("--datasets", help="folder of the datasets")
    group.addoption("--steps", type=int, default=0, help="end each run after so many steps")


def pytest_configure(config):
    config.pluginmanager.register(Outcomes(Path(config.getoption("--outcomes"))))
    add_missing_checks(config.rootpath / "tests" / "testing_utils.py")


def add_missing_checks(path: Path):
    """
    Let the checks for optional packages that `path` imports from `trl.import_utils`, and that the installed TRL has not,
    say no: the tests that ask are skipped.
    """
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "trl.import_utils":
            for name in {alias.name for alias in node.names} - set(vars(import_utils)):
                assert name.startswith("is_"), name
                setattr(import_utils, name, lambda: False)


class Outcomes:
    """Writes how each test ended, and why, into a file."""

    def __init__(self, path: Path):
        self.path, self.found = path, {}

    def pytest_runtest_logreport(self, report):
        name = report.nodeid.split("::", 1)[1]
        if report.when == "call" or report.outcome != "passed":
            self.found[name] = {"outcome": report.outcome, "reason": reason_of(report)}

    def pytest_deselected(self, items):
        for item in items:
            found = left_out(item.nodeid)
            if found is not None:
                self.found[item.nodeid.split("::", 1)[1]] = {"outcome": "left out", "reason": found}

    def pytest_sessionfinish(self):
        self.path.write_text(json.dumps(self.found))


def reason_of(report) -> str:
    """The error of a failed test, or why it was skipped; one line."""
    if report.outcome == "passed":
        return ""
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    crash = getattr(report.longrepr, "reprcrash", None)  # an error of pytest itself is a string
    return " ".join((crash.message if crash is not None else str(report.longrepr)).split())


def pytest_collection_modifyitems(config, items):
    kept = [item for item in items if left_out(item.nodeid) is None]
    config.hook.pytest_deselected(items=[item for item in items if left_out(item.nodeid) is not None])
    items[:] = kept
    folder = Path(config.getoption("--datasets"))
    for module in {item.module for item in items}:
        assert Path(trl.__file__).parents[1] != Path(module.__file__).parents[1]  # the installed TRL is tested
        module.load_dataset = lambda *args, **kwargs: load_local(folder, *args, **kwargs)
        if config.getoption("--swap"):
            module.GRPOTrainer, module.GRPOConfig = TeamTRTrainer, TeamTRConfig


def load_local(folder: Path, path: str, name: str, split: str | None = None, streaming: bool = False):
    """`load_dataset` from the files that [`make_hub`] wrote."""
    files = {file.stem: str(file) for file in (folder / path / name).glob("*.parquet")}
    return load_dataset("parquet", data_files=files, split=split, streaming=streaming)


@pytest.fixture(autouse=True)
def vocabulary(request):
    """The revision of the model that the test needs."""
    cache = Path(os.environ["HF_HUB_CACHE"])
    if not request.node.name.startswith(NEEDS_WIDE):
        yield
        return
    set_revision(cache, WIDE, WIDE_COMMIT)
    yield
    set_revision(cache, WIDE, PLAIN_COMMIT)


@pytest.fixture(autouse=True)
def quick(request, monkeypatch):
    """Float32, since CPUs without bfloat16 emulate TRL's default ten times slower; and runs of a few steps."""
    finish, steps = _BaseConfig.__post_init__, request.config.getoption("--steps")

    def finish_quick(self):
        self.bf16 = False
        if steps and self.max_steps < 0:
            self.max_steps = steps
        finish(self)

    monkeypatch.setattr(_BaseConfig, "__post_init__", finish_quick)
