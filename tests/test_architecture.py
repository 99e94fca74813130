"""ARCHITECTURE.md tells the truth: its names exist, its walks are those of a real run, and its floors hold."""

import functools
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import make_team, make_trainer

import trl_teamtr


ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "ARCHITECTURE.md").read_text()


def walk(title: str) -> list[tuple[str, str]]:
    """The numbered stops of a section: name and file of each function."""
    section = PAGE.split(f"## {title}\n")[1].split("\n## ")[0]
    return re.findall(r"^\d+\. `([\w.]+)` \(`([\w/.]+)`\)", section, re.MULTILINE)


MESSAGE, UPDATE = walk("The life of a message"), walk("The life of an update")


def find(name: str, path: str):
    """The owner of a function, and the function's own name."""
    owner = importlib.import_module(path.removesuffix(".py").replace("/", "."))
    *parents, last = name.split(".")
    for parent in parents:
        owner = vars(owner)[parent]
    return owner, last


def record(monkeypatch, stops: list[tuple[str, str]], calls: list[str]):
    """Note in `calls` the beginning of each call of `stops`."""

    def watch(owner, last, name):
        function = vars(owner)[last]

        @functools.wraps(function)
        def call(*args, **kwargs):
            calls.append(name)
            return function(*args, **kwargs)

        return call

    for name, path in stops:
        owner, last = find(name, path)
        watched = watch(owner, last, name)
        monkeypatch.setattr(owner, last, watched)
        if not isinstance(owner, type):  # a function that others have imported by its name
            for module in list(sys.modules.values()):
                if module.__name__.startswith("trl_teamtr.") and last in vars(module):
                    monkeypatch.setattr(module, last, watched)


def squeeze(calls: list[str]) -> list[str]:
    """One entry for consecutive equal ones: a stop is visited once for all rows of a turn."""
    return [name for i, name in enumerate(calls) if i == 0 or calls[i - 1] != name]


@pytest.mark.parametrize(
    "name, path", sorted(set(re.findall(r"`(?:(\w[\w.]*)` \()?`?(trl_teamtr/[\w/]+\.py)`", PAGE)))
)
def test_names_of_the_page_exist(name, path):
    assert (ROOT / path).is_file()
    if name:
        owner, last = find(name, path)
        assert last in vars(owner)


@pytest.mark.parametrize("stops", [MESSAGE, UPDATE], ids=["message", "update"])
def test_walks_are_short_and_visit_nothing_twice(stops):
    assert 6 <= len(stops) <= 8 and len(set(stops)) == len(stops)


def test_a_turn_of_a_speculative_update_walks_as_the_page_says(tmp_path, monkeypatch):
    trainer = make_trainer(
        tmp_path, make_team(3), num_rounds=2, resampling="speculative", trust_region_radius=1.0, learning_rate=0.1
    )
    calls: list[str] = []
    record(monkeypatch, MESSAGE, calls)
    trainer.train()
    names = [name for name, _ in MESSAGE]
    runs = [i for i, name in enumerate(calls) if name == names[0]]
    assert len(runs) == 3  # the stage's first rollouts, and those after the first and the second update
    turns, turn = [], []
    for name in squeeze([name for name in calls[runs[1] :] if name != names[0]]):
        turn.append(name)
        if name == names[-1]:
            turns.append(turn)
            turn = []
    assert names[1:] in turns  # a turn in which some messages are verified and some generated
    for turn in turns:  # in the others a stop may be left out, but none comes earlier
        assert turn == [name for name in names if name in turn]


def test_an_update_walks_as_the_page_says(tmp_path, monkeypatch):
    calls: list[str] = []
    record(monkeypatch, UPDATE, calls)
    make_trainer(tmp_path, make_team(1)).train()
    assert squeeze(calls) == [name for name, _ in UPDATE]


def test_every_room_says_what_it_is_for():
    for folder in (ROOT / "trl_teamtr").iterdir():
        if folder.is_dir() and folder.name != "__pycache__":
            room = importlib.import_module(f"trl_teamtr.{folder.name}")
            assert room.__doc__ and room.__doc__.strip().endswith("."), folder.name
            assert f"`{folder.name}/`" in PAGE
            for name in vars(room).get("__all__", ()):
                assert name in vars(room)


def test_few_modules_stand_outside_the_rooms():
    assert len(list((ROOT / "trl_teamtr").glob("*.py"))) <= 8


def test_floors():
    pytest.importorskip("importlinter")
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports"], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout
    assert "3 kept, 0 broken" in done.stdout and "ignored" not in done.stdout


def test_the_package_ships_its_types():
    assert (Path(trl_teamtr.__file__).parent / "py.typed").is_file()
