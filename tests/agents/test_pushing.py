"""What of a team is uploaded, to a hub that records it."""

import shutil
from pathlib import Path

import pytest
from peft import LoraConfig
from tiny import make_model, make_team, make_tokenizer

from trl_teamtr import Agent, Team, load_team
from trl_teamtr.agents import pushing, team_file
from trl_teamtr.agents.settings import SamplingSettings, SpeakingSettings


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub in a folder."""

    def create_repo(repository, private, token, exist_ok):
        (tmp_path / "hub" / repository).mkdir(parents=True, exist_ok=exist_ok)
        return f"https://hub/{repository}"

    def upload_folder(repo_id, folder_path, token, revision, commit_message):
        assert token == "the token" and commit_message == "Upload a team" and revision is None
        shutil.copytree(folder_path, tmp_path / "hub" / repo_id, dirs_exist_ok=True)

    monkeypatch.setattr(pushing, "create_repo", create_repo)
    monkeypatch.setattr(pushing, "upload_folder", upload_folder)
    monkeypatch.setattr(team_file, "snapshot_download", lambda name, revision: str(tmp_path / "hub" / name))
    return tmp_path / "hub"


def test_a_pushed_team_is_loaded_by_its_id(hub, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    team = Team.from_agents(make_team(2), SpeakingSettings(SamplingSettings(max_completion_length=4)))
    assert team.push_to_hub("me/team", token="the token") == "https://hub/me/team"
    card = (hub / "me" / "team" / "README.md").read_text()
    assert "- `x`\n- `y`" in card and 'Team.from_pretrained("me/team")' in card and "library_name: trl_teamtr" in card
    again = Team.from_pretrained("me/team")
    assert str(again.chat("au", seed=1)) == str(team.chat("au", seed=1))
    assert [agent.name for agent in load_team("me/team")] == ["x", "y"]
    assert "the token" not in "".join(path.read_text() for path in hub.rglob("*.json"))


def test_a_base_of_this_machine_is_not_left_behind(hub, tmp_path):
    make_model(seed=4).save_pretrained(tmp_path / "base")
    make_tokenizer().save_pretrained(tmp_path / "base")
    lora = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"])
    team = Team.from_agents([Agent("x", str(tmp_path / "base"), peft_config=lora)])
    with pytest.raises(ValueError, match="agent 'x' is on the base .* a directory of this machine"):
        team.push_to_hub("me/team", token="the token")
    assert not hub.exists()
    team.push_to_hub("me/team", token="the token", self_contained=True)
    assert Path(hub, "me/team/bases/base/model.safetensors").is_file()
    team.push_to_hub("me/merged", token="the token", merge=True)
    assert not Path(hub, "me/merged/adapter_model.safetensors").exists()


def test_what_is_no_id_is_not_looked_for_on_the_hub(hub, tmp_path):
    for path in ("team", "./me/team", str(tmp_path / "me")):
        with pytest.raises(FileNotFoundError, match="There is no team.json in"):
            Team.from_pretrained(path)
