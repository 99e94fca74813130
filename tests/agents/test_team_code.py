"""Routers and stop conditions are saved by their dotted paths, or not at all."""

import functools
import sys

import pytest

from trl_teamtr.agents.team_code import describe_code, dotted_path, find_code, shown


def route(transcript):
    return "x"


class Router:
    def __call__(self, transcript):
        return "x"


@pytest.mark.parametrize(
    "function, path, name",
    [
        (route, "test_team_code.route", "route"),
        (lambda transcript: "x", None, "<lambda>"),
        (Router(), None, "Router"),
        (functools.partial(route), None, "partial"),
    ],
)
def test_a_function_of_a_module_has_a_path(function, path, name):
    assert dotted_path(function) == path and shown(function).rpartition(".")[2] == name
    assert describe_code(function) == {"path": path, "shown": shown(function)}


def test_no_function_is_nothing():
    assert describe_code(None) is None


def test_a_function_of_a_script_or_under_another_name_has_none(monkeypatch):
    def inner(transcript):
        return "x"

    assert dotted_path(inner) is None
    other = functools.wraps(route)(lambda transcript: "y")
    assert dotted_path(other) is None
    monkeypatch.setattr(route, "__module__", "__main__")
    assert dotted_path(route) is None


def description(path):
    return {"code": {"router": {"path": path, "shown": "route"}, "stop_condition": None}}


def test_saved_code_is_found_unless_it_is_given():
    nothing = {"router": None, "stop_condition": None}
    assert find_code(description("test_team_code.route"), nothing, "run") == {**nothing, "router": route}
    given = {"router": len, "stop_condition": any}
    assert find_code(description("test_team_code.route"), given, "run") == given
    assert find_code(description(None), given, "run") == given
    assert find_code({"format": 1}, nothing, "run") == nothing


def test_code_that_was_not_saved_is_asked_for():
    with pytest.raises(
        ValueError, match="'run' has a router of its own, 'route', which cannot be imported.*Pass it as `router`"
    ):
        find_code(description(None), {"router": None, "stop_condition": None}, "run")


@pytest.mark.parametrize("path", ["no_such_module.route", "test_team_code.gone"])
def test_code_that_is_gone_is_asked_for(path):
    with pytest.raises(ValueError, match=f"has the router '{path}', which is not there.*pass another as `router`"):
        find_code(description(path), {"router": None, "stop_condition": None}, "run")


def test_saved_code_may_be_in_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "my_routes.py").write_text("def first(transcript):\n    return 'x'\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    found = find_code(description("my_routes.first"), {"router": None, "stop_condition": None}, "run")
    assert found["router"](None) == "x"


def test_code_that_a_downloaded_team_names_is_not_run_unasked():
    nothing = {"router": None, "stop_condition": None}
    with pytest.raises(
        ValueError, match="was downloaded, names 'no_such_module.route' as its router.*`trust_remote_code=True`"
    ):
        find_code(description("no_such_module.route"), nothing, "me/team", trusted=False)
    assert (
        find_code(description("no_such_module.route"), {**nothing, "router": len}, "me/team", trusted=False)["router"]
        is len
    )
    assert find_code({"format": 2}, nothing, "me/team", trusted=False) == nothing
