"""What can be said of a member behind an endpoint, and what is refused by name."""

import json

import pytest
from peft import LoraConfig
from tiny import make_tokenizer

from trl_teamtr import Agent, Team, load_team
from trl_teamtr.agents import team_file
from trl_teamtr.agents.team_file import TEAM_FILE, describe_team
from trl_teamtr.conversation.rules import TurnTaking


URL = "https://host/v1"


def remote(**fields):
    return Agent("critic", **{"endpoint": URL, "model": "m"} | fields)


def test_a_remote_member_is_frozen_and_others_are_not():
    assert remote().is_remote and remote().trainable is False
    assert not Agent("a", "m").is_remote and Agent("a", "m").trainable is True
    assert Agent("a", "m", trainable=False).trainable is False


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"trainable": True}, "Agent 'critic' is remote .* so it cannot be trained"),
        ({"peft_config": LoraConfig(r=1)}, "`peft_config` trains an adapter"),
        ({"processing_class": make_tokenizer()}, "`processing_class` is the tokenizer of a model here"),
        ({"learning_rate": 1e-4}, "`learning_rate` is for training"),
        ({"trust_region_radius": 0.1}, "`trust_region_radius` is for training"),
        ({"chat_template_kwargs": {"a": 1}}, "`chat_template_kwargs` is for a chat template"),
        ({"thinking_end": "</think>"}, "`thinking_end` divides sampled tokens"),
        ({"thoughts": "shared"}, "`thoughts='shared'` is not possible"),
        ({"keep_thoughts": False}, "`keep_thoughts=False` is for thoughts in its messages"),
        ({"vllm_server_base_url": "http://x"}, "`vllm_server_base_url` is for the weights"),
        ({"reward_funcs": [len]}, "`trainable=False` and `reward_funcs`"),
        ({"generation_kwargs": {"stream": True}}, "`generation_kwargs` has `stream`, which the team decides"),
        ({"model": None}, "`model` must be the name that the endpoint knows it by, got NoneType"),
        ({"endpoint": "host/v1"}, "`endpoint` must be an address such as"),
        ({"endpoint": 3}, "`endpoint` must be an address such as"),
        ({"endpoint": "ftp://host/v1"}, "`endpoint` must be an address such as"),
        ({"endpoint": f"{URL}/chat/completions"}, "is the address before '/chat/completions'"),
        ({"endpoint_timeout": 0.0}, "`endpoint_timeout` must be positive"),
        ({"endpoint_concurrency": 0}, "`endpoint_concurrency` must be positive"),
        ({"endpoint": None, "api_key_env": "KEY"}, "has `api_key_env`, which is for a member with an `endpoint`"),
    ],
)
def test_what_needs_a_model_here_is_refused_by_name(fields, message):
    with pytest.raises(ValueError, match=message):
        remote(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"endpoint": "https://user:hunter2@host/v1"},
        {"endpoint": "https://host/v1?api_key=hunter2"},
        {"api_key_env": "sk-hunter2"},
        {"api_key_env": "gsk_hunter2"},
        {"api_key_env": ""},
    ],
)
def test_a_secret_in_the_wrong_place_is_refused_and_not_shown(fields):
    with pytest.raises(ValueError, match="environment variable|in upper case") as caught:
        remote(**fields)
    assert "hunter2" not in str(caught.value)


def save(folder, *agents):
    (folder / TEAM_FILE).write_text(json.dumps(describe_team(agents, TurnTaking())), encoding="utf-8")
    return str(folder)


def test_a_saved_team_has_the_endpoint_and_the_model_and_never_the_key(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-hunter2")
    critic = remote(api_key_env="MY_KEY", endpoint_timeout=5.0, generation_kwargs={"seed": None, "temperature": 0.5})
    path = save(tmp_path, Agent("solver", "m"), critic)
    assert load_team(path) == [Agent("solver", f"{path}/solver"), critic]
    (entry,) = [each for each in json.loads((tmp_path / TEAM_FILE).read_text())["agents"] if each["name"] == "critic"]
    assert (entry["endpoint"], entry["model"], entry["api_key_env"]) == (URL, "m", "MY_KEY")
    assert "hunter2" not in (tmp_path / TEAM_FILE).read_text() + repr(load_team(path))


def test_a_team_from_the_hub_does_not_decide_who_gets_the_key(tmp_path, monkeypatch):
    path = save(tmp_path, remote(api_key_env="AWS_SECRET"))
    monkeypatch.setattr(team_file, "snapshot_download", lambda name, revision: path)
    for load in (load_team, Team.from_pretrained):
        with pytest.raises(
            ValueError, match="member 'critic' at https://host/v1: .* in the environment variable AWS_SECRET"
        ):
            load("me/team")
        load("me/team", trust_remote_code=True)
    assert load_team(path)[0].is_remote  # a directory is the user's own
