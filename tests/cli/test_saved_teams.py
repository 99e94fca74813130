import argparse

import pytest
from tiny import make_team, make_trainer

from trl_teamtr.cli.saved_teams import add_team_arguments, load, read_pairs


def parse(*arguments):
    parser = argparse.ArgumentParser()
    add_team_arguments(parser)
    return parser.parse_args([*map(str, arguments)])


def test_a_router_that_could_not_be_saved_is_given_by_its_path(tmp_path, monkeypatch):
    make_trainer(tmp_path / "run", make_team(2), router=lambda t: "xy"[len(t.messages) % 2]).save_model()
    with pytest.raises(SystemExit, match="error: The team in .* has a router of its own"):
        load(parse(tmp_path / "run"))
    (tmp_path / "own_routes.py").write_text(
        "def first(transcript):\n    return 'x'\n\n\ndef stop(t):\n    return True\n"
    )
    monkeypatch.chdir(tmp_path)
    team = load(parse("run", "--router", "own_routes.first", "--stop-condition", "own_routes.stop"))
    assert team.rules.router(None) == "x" and team.rules.stop_condition(None)
    with pytest.raises(SystemExit, match="error: There is no router 'nowhere.first'"):
        load(parse("run", "--router", "nowhere.first"))


def test_no_team_is_said_so(tmp_path):
    with pytest.raises(SystemExit, match="error: There is no team.json in"):
        load(parse(tmp_path))


def test_pairs():
    assert read_pairs(["a=1", "b=2=3"]) == {"a": "1", "b": "2=3"}
    with pytest.raises(SystemExit, match="error: --private is 'a', but must be AGENT=TEXT"):
        read_pairs(["a"])
