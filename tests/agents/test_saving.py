"""A team that was saved, merged, given its bases or changed by hand says what the team before said."""

import json
import shutil

import pytest
import torch
from peft import LoraConfig
from tiny import PROMPTS, make_model, make_team, make_tokenizer, make_trainer

from trl_teamtr import Agent, Team, load_team
from trl_teamtr.agents.saving import BASES


LORA = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)


@pytest.fixture
def adapters(tmp_path):
    """A saved team of two adapters on one base and a frozen whole model."""
    make_model(seed=4).save_pretrained(tmp_path / "base")
    make_tokenizer().save_pretrained(tmp_path / "base")
    agents = [Agent(name, str(tmp_path / "base"), peft_config=LORA) for name in "xy"]
    agents.append(Agent("z", make_model(seed=5), processing_class=make_tokenizer(), trainable=False))
    make_trainer(tmp_path / "run", agents, num_rounds=2, max_completion_length=6).save_model()
    return Team.from_pretrained(str(tmp_path / "run"))


def test_weights_that_no_process_has_are_not_saved_empty(adapters, tmp_path, monkeypatch):
    monkeypatch.setattr("trl_teamtr.agents.saving.is_deepspeed_zero3_enabled", lambda: True)
    with pytest.raises(
        RuntimeError, match="Under ZeRO-3 no process has the weights of agent 'x', .* `trainer.save_model"
    ):
        adapters.save_pretrained(str(tmp_path / "new"))
    assert not (tmp_path / "new").exists()


def said(team, **arguments):
    return [str(talk) for talk in team.generate(PROMPTS, **({"seed": 0} | arguments))]


def weights_files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.safetensors"))


def test_a_saved_team_is_the_same_team(adapters, tmp_path):
    adapters.save_pretrained(str(tmp_path / "new"))
    again = Team.from_pretrained(str(tmp_path / "new"))
    assert said(again) == said(adapters) and len(set(said(again))) > 4
    files = ["x/adapter_model.safetensors", "y/adapter_model.safetensors", "z/model.safetensors"]
    assert weights_files(tmp_path / "new") == files
    assert again.describe() == adapters.describe()
    assert again.describe()["agents"][0]["base_model"]["id"] == str(tmp_path / "base")
    assert [agent.trainable for agent in load_team(str(tmp_path / "new"))] == [True, True, False]


def test_merged_adapters_are_whole_models(adapters, tmp_path):
    before = said(adapters)
    adapters.save_pretrained(str(tmp_path / "merged"), merge=True)
    assert said(adapters) == before  # the team itself is as it was
    shutil.rmtree(tmp_path / "base")
    merged = Team.from_pretrained(str(tmp_path / "merged"))
    assert weights_files(tmp_path / "merged") == [f"{name}/model.safetensors" for name in "xyz"]
    assert not any(entry["is_adapter"] for entry in merged.describe()["agents"])
    ids = torch.tensor([[0, 2, 2, 0]])
    for ours, theirs in zip(merged.speakers, adapters.speakers, strict=True):
        torch.testing.assert_close(ours.policy.model(ids).logits, theirs.policy.model(ids).logits, atol=1e-5, rtol=0)
    assert said(merged) == before


def test_a_self_contained_team_needs_no_other_directory(adapters, tmp_path):
    before = said(adapters)
    adapters.save_pretrained(str(tmp_path / "whole"), self_contained=True)
    shutil.rmtree(tmp_path / "base")
    shutil.move(tmp_path / "whole", tmp_path / "elsewhere" / "team")
    moved = tmp_path / "elsewhere" / "team"
    assert weights_files(moved)[0] == f"{BASES}/base/model.safetensors" and len(weights_files(moved)) == 4
    config = json.loads((moved / "x" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "../bases/base"
    team = Team.from_pretrained(str(moved))
    assert said(team) == before
    shared = [dict(speaker.policy.model.named_parameters()) for speaker in team.speakers[:2]]
    assert sum(shared[0][name] is shared[1][name] for name in shared[0]) > 5  # still one base in memory
    # Once more, from where it is, and in place
    team.save_pretrained(str(tmp_path / "third"), self_contained=True)
    assert said(Team.from_pretrained(str(tmp_path / "third"))) == before
    team.save_pretrained(str(moved), self_contained=True)
    assert said(Team.from_pretrained(str(moved))) == before


def test_an_adapter_alone_takes_its_base_with_it(tmp_path):
    make_model(seed=4).save_pretrained(tmp_path / "base")
    make_tokenizer().save_pretrained(tmp_path / "base")
    make_trainer(tmp_path / "run", [Agent("x", str(tmp_path / "base"), peft_config=LORA)]).save_model()
    team = Team.from_pretrained(str(tmp_path / "run"))
    before = said(team)
    team.save_pretrained(str(tmp_path / "whole"), self_contained=True)
    shutil.rmtree(tmp_path / "base")
    assert said(Team.from_pretrained(str(tmp_path / "whole"))) == before
    with pytest.raises(FileNotFoundError, match="Agent 'x': the base model .*base' of the adapter in"):
        Team.from_pretrained(str(tmp_path / "run"))


def test_what_was_frozen_or_changed_by_hand_is_what_is_loaded(adapters, tmp_path):
    adapters.save_pretrained(str(tmp_path / "new"))
    file = tmp_path / "new" / "team.json"
    content = json.loads(file.read_text())
    content["agents"][0] |= {"trainable": False, "system_prompt": "aaaa"}
    file.write_text(json.dumps(content))
    shutil.rmtree(tmp_path / "new" / "y")
    make_model(seed=9).save_pretrained(tmp_path / "new" / "y")
    make_tokenizer().save_pretrained(tmp_path / "new" / "y")
    team = Team.from_pretrained(str(tmp_path / "new"))
    assert [speaker.agent.trainable for speaker in team.speakers] == [False, True, False]
    assert team.speakers[0].agent.system_prompt == "aaaa"
    assert torch.equal(team.speakers[1].policy.model.lm_head.weight, make_model(seed=9).lm_head.weight)
    team.save_pretrained(str(tmp_path / "third"), self_contained=True)
    again = Team.from_pretrained(str(tmp_path / "third"))
    assert said(again) == said(team) != said(adapters)
    trained = make_trainer(tmp_path / "more", str(tmp_path / "third"), num_rounds=2, max_completion_length=6)
    assert [member.name for member in trained.trained_members] == ["y"]


def test_a_folder_of_another_team_is_refused(adapters, tmp_path):
    with pytest.raises(ValueError, match="holds another team: its agents are x, y, z; this team's are x, y"):
        Team.from_agents(make_team(2)).save_pretrained(str(tmp_path / "run"))


def test_a_base_without_a_path_cannot_be_copied(tmp_path):
    agents = [Agent("x", make_model(), peft_config=LORA, processing_class=make_tokenizer())]
    with pytest.raises(ValueError, match="Agent 'x': the base model of its adapter was not loaded from a path"):
        Team.from_agents(agents).save_pretrained(str(tmp_path / "new"), self_contained=True)


def test_a_base_of_the_hub_that_is_not_there_is_named_with_its_agent(tmp_path):
    make_model(seed=4).save_pretrained(tmp_path / "base")
    make_tokenizer().save_pretrained(tmp_path / "base")
    make_trainer(tmp_path / "run", [Agent("x", str(tmp_path / "base"), peft_config=LORA)]).save_model()
    file = tmp_path / "run" / "adapter_config.json"
    config = json.loads(file.read_text()) | {"base_model_name_or_path": "nobody/nothing"}
    file.write_text(json.dumps(config))
    with pytest.raises(FileNotFoundError, match="Agent 'x': the base model 'nobody/nothing' of the adapter in"):
        Team.from_pretrained(str(tmp_path / "run"))
