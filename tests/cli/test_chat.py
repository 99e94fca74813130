"""`trl-teamtr chat`, in this process."""

import io

import pytest
from fake_endpoint import answering, remote_agent
from served import make_chat_team

from trl_teamtr import Team
from trl_teamtr.cli.main import main
from trl_teamtr.policy.remote.endpoint import EndpointClient


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("team"))
    make_chat_team(rounds=2).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def team(saved):
    return Team.from_pretrained(saved)


def chat(capsys, *arguments):
    assert main(["chat", *arguments]) == 0
    return capsys.readouterr().out


def type_in(monkeypatch, *lines):
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))


def test_once_prints_one_answer_and_exits(saved, team, capsys, monkeypatch):
    talk = team.chat("au", seed=3)
    assert chat(capsys, saved, "--once", "au", "--seed", "3") == f"{talk.final_text}\n"
    assert chat(capsys, saved, "--once", "au", "--seed", "3", "--transcript") == f"{talk}\n"
    type_in(monkeypatch, "au")
    assert chat(capsys, saved, "--once", "-", "--greedy") == f"{team.chat('au' + chr(10), greedy=True).final_text}\n"
    private = ["--private", "y=aaaa", "--private", "x=u"]
    own = {"x": "u", "y": "aaaa"}
    assert chat(capsys, saved, "--once", "au", "--seed", "3", *private) == f"{team.chat('au', own, 3).final_text}\n"


def test_a_talk_goes_on_until_it_ends(saved, team, capsys, monkeypatch):
    first = team.chat("au", seed=3)
    turns = [{"role": "user", "content": "au"}, {"role": "assistant", "content": first.final_text}]
    second = team.chat([*turns, {"role": "user", "content": "u"}], seed=3)
    type_in(monkeypatch, "au", "u", "", "/new", "au")
    shown = chat(capsys, saved, "--seed", "3")
    assert shown.startswith("x, y are here.")
    assert [part.strip() for part in shown.split("\n> ")[1:]] == [str(first), str(second), "", "", str(first), ""]
    type_in(monkeypatch, "/exit", "au")
    assert chat(capsys, saved).count(">") == 1


def test_a_question_that_is_too_long_does_not_end_the_talk(saved, team, capsys, monkeypatch):
    type_in(monkeypatch, "a" * 200, "au")
    shown = chat(capsys, saved, "--seed", "3")
    assert "error: The prompt takes 201 tokens" in shown and str(team.chat("au", seed=3)) in shown


def test_what_is_wrong_is_said_in_a_line(saved):
    with pytest.raises(SystemExit, match="error: The prompt takes 201 tokens"):
        main(["chat", saved, "--once", "a" * 200])
    with pytest.raises(SystemExit, match="error: `agent_prompts` names z"):
        main(["chat", saved, "--once", "a", "--private", "z=a"])


def test_an_endpoint_that_does_not_answer_is_said_in_a_line(tmp_path, capsys, monkeypatch):
    with answering() as server:
        Team.from_agents([remote_agent(server, "far")]).save_pretrained(str(tmp_path))
        monkeypatch.setattr(EndpointClient, "backoff", 0.0)
        assert (
            chat(capsys, str(tmp_path), "--once", "au")
            == f"{server.complete(server.bodies[-1])['choices'][0]['message']['content']}\n"
        )
    with pytest.raises(SystemExit, match="error: The endpoint .* of agent 'far' .tiny. cannot be reached"):
        main(["chat", str(tmp_path), "--once", "au"])
    type_in(monkeypatch, "au", "/exit")
    assert "error: The endpoint" in chat(capsys, str(tmp_path))


def test_ctrl_c_stops_the_answer_and_not_the_talk(saved, team, capsys, monkeypatch):
    stream = Team.stream
    asked = []

    def interrupted(self, prompt, **own):
        asked.append(prompt)
        if len(asked) == 1:
            raise KeyboardInterrupt
        return stream(self, prompt, **own)

    monkeypatch.setattr(Team, "stream", interrupted)
    type_in(monkeypatch, "u", "au")
    shown = chat(capsys, saved, "--seed", "3")
    assert "(stopped)" in shown and str(team.chat("au", seed=3)) in shown and len(asked[1]) == 1
