"""A team of one is saved where `GRPOTrainer` saves its model: at the root of the output directory and of checkpoints."""

import json
import os
import shutil

import pytest
import torch
from accelerate import Accelerator
from peft import LoraConfig, PeftModel
from tiny import make_model, make_team, make_tokenizer, make_trainer
from transformers import AutoModelForCausalLM, AutoTokenizer

from trl_teamtr import Agent, Team, load_team
from trl_teamtr.agents import agent_folders
from trl_teamtr.agents.agent_folders import folder_beside, put_agent, recover_agent
from trl_teamtr.runs.manifest import MANIFEST, write_manifest


LORA = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
SAVING = {
    "save_strategy": "steps",
    "save_steps": 1,
    "num_stages": 2,
    "learning_rate": 0.05,
    "trust_region_radius": 1.0,
}


def logits(model):
    with torch.no_grad():
        return model.eval()(torch.tensor([[0, 2, 2, 0]])).logits


def train(folder, model=None, **fields):
    torch.manual_seed(1)
    agents = make_team(1) if model is None else [Agent("x", model, processing_class=make_tokenizer(), **fields)]
    trainer = make_trainer(folder, agents, **SAVING)
    trainer.train()
    trainer.save_model()
    return trainer


@pytest.fixture
def base(tmp_path):
    make_model(seed=4).save_pretrained(tmp_path / "base")
    return str(tmp_path / "base")


def test_from_pretrained_reads_the_output_directory_and_the_checkpoints(tmp_path):
    expected = logits(train(tmp_path / "run").model)
    for folder in (tmp_path / "run", tmp_path / "run" / "checkpoint-2"):
        assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(folder)), expected)
        assert torch.equal(logits(Team.from_pretrained(str(folder)).speakers[0].policy.model), expected)
    assert AutoTokenizer.from_pretrained(tmp_path / "run").eos_token == "."
    assert not (tmp_path / "run" / "x").exists() and not list(tmp_path.glob("run/tmp-*"))
    card = (tmp_path / "run" / "README.md").read_text()
    assert "The agent is the model (or adapter) in this directory" in card


def test_an_adapter_is_read_with_its_base(tmp_path, base):
    trainer = train(tmp_path / "run", base, peft_config=LORA)
    for folder in (tmp_path / "run", tmp_path / "run" / "checkpoint-2"):
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder)
        assert torch.equal(logits(model), logits(trainer.model))
    assert "Team.from_pretrained" in (tmp_path / "run" / "README.md").read_text()  # the team's card, not PEFT's


def test_another_form_takes_the_place_of_the_one_before_and_other_files_stay(tmp_path, base):
    train(tmp_path / "run", base, peft_config=LORA)
    (tmp_path / "run" / "notes.txt").write_text("mine")
    shutil.rmtree(tmp_path / "run" / "checkpoint-2")
    trainer = train(tmp_path / "run", base)
    assert not (tmp_path / "run" / "adapter_config.json").exists()
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "run")), logits(trainer.model))


def as_saved_by_an_older_version(folder):
    """With the agent in a folder of its own."""
    (folder / "x").mkdir()
    own = ("team.json", "training_args.json", "trainer_state.json", "teamtr_run.json", "rng_state.pth", "README.md")
    own += ("log.jsonl", "transcripts.jsonl")
    for path in list(folder.iterdir()):
        if path.is_file() and path.name not in own:
            path.rename(folder / "x" / path.name)
    if (folder / "trainer_state.json").exists():
        shutil.copy(folder / "trainer_state.json", folder / "x")
    (folder / "x" / MANIFEST).unlink(missing_ok=True)
    team = json.loads((folder / "team.json").read_text())
    assert team["agents"][0].pop("folder") == "."
    (folder / "team.json").write_text(json.dumps(team))
    write_manifest(str(folder), Accelerator())


def test_teams_that_older_versions_saved_load_resume_and_are_replaced(tmp_path):
    expected = logits(train(tmp_path / "run").model)
    for name in ("checkpoint-1", ""):
        as_saved_by_an_older_version(tmp_path / "run" / name)
    (agent,) = load_team(str(tmp_path / "run"))
    assert agent.model == str(tmp_path / "run" / "x")
    assert torch.equal(logits(Team.from_pretrained(str(tmp_path / "run")).speakers[0].policy.model), expected)
    torch.manual_seed(1)
    trainer = make_trainer(tmp_path / "run", make_team(1), **SAVING)
    trainer.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-1"))
    trainer.save_model()
    assert torch.equal(logits(trainer.model), expected)
    assert not (tmp_path / "run" / "x").exists()
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "run")), expected)


def write(folder, at, names):
    os.makedirs(at)
    for name in names:
        with open(os.path.join(at, name), "w") as file:
            file.write(at)


@pytest.mark.parametrize("kill", range(9))
def test_a_kill_at_any_moment_leaves_one_whole_model(tmp_path, monkeypatch, kill):
    folder, left = str(tmp_path), [kill]
    old = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "config.json"]
    new = ["adapter_model.safetensors", "adapter_config.json", "tokenizer.json"]
    for names in (old, new):
        write(folder, folder_beside(folder, at_root=True), names)
        if names is new:
            for function in ("rename", "replace", "remove"):
                original = getattr(os, function)

                def die(*args, original=original):
                    if left[0] == 0:
                        raise KeyboardInterrupt
                    left[0] -= 1
                    original(*args)

                monkeypatch.setattr(agent_folders.os, function, die)
        try:
            put_agent(folder_beside(folder, at_root=True), folder)
        except KeyboardInterrupt:
            pass
    monkeypatch.undo()
    recover_agent(folder, at_root=True)
    assert sorted(os.listdir(folder)) == sorted(old if kill == 0 else new)
    assert (left[0] > 0) == (kill == 8)  # in seven operations
