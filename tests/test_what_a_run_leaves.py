"""What a run leaves behind: a team that loads again, logs, and reports."""

import json

import torch
from peft import LoraConfig
from tiny import changed, make_model, make_team, make_tokenizer, make_trainer, weights
from transformers import AutoModelForCausalLM, AutoTokenizer

from trl_teamtr import Agent, TeamTRTrainer, load_team


def test_saved_team_loads_with_from_pretrained_and_for_more_training(tmp_path):
    team = make_team(2)
    team[0].system_prompt, team[1].trust_region_radius = "aa", 0.3
    trainer = make_trainer(tmp_path / "run", team, num_stages=1, trust_region_radius=0.5)
    trainer.train()
    trainer.save_model()
    saved = json.loads((tmp_path / "run" / "team.json").read_text())
    assert [agent["name"] for agent in saved["agents"]] == ["x", "y"]
    for member in trainer.members:
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / member.name)
        assert not changed(weights(model), member.model)
        assert AutoTokenizer.from_pretrained(tmp_path / "run" / member.name).eos_token == "."
    for again in (load_team(str(tmp_path / "run")), str(tmp_path / "run")):
        resumed = make_trainer(tmp_path / "more", again)
        assert [m.agent.system_prompt for m in resumed.members] == ["aa", None]
        assert [m.radius for m in resumed.members] == [0.01, 0.3]
        assert not changed(weights(trainer.members[1].model), resumed.members[1].model)
    assert 0 <= resumed.evaluate()["eval_team/reward"] + 1 <= 2
    resumed.train()


def test_saved_adapters_load_onto_one_shared_base(tmp_path):
    make_model().save_pretrained(tmp_path / "base")
    make_tokenizer().save_pretrained(tmp_path / "base")
    lora = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    team = [Agent(name, str(tmp_path / "base"), peft_config=lora) for name in "xy"]
    trainer = make_trainer(tmp_path / "run", team, trust_region_radius=1.0)
    trainer.train()
    trainer.save_model()
    resumed = make_trainer(tmp_path / "more", str(tmp_path / "run"), beta=0.1, trust_region_radius=1.0)
    for old, new in zip(trainer.members, resumed.members, strict=True):
        for name, parameter in old.model.named_parameters():
            assert torch.equal(parameter, new.model.get_parameter(name))
    shared = [{p.data_ptr() for n, p in m.model.named_parameters() if "lora" not in n} for m in resumed.members]
    assert shared[0] == shared[1]
    before = [weights(m.model) for m in resumed.members]
    resumed.train()
    assert all(changed(b, m.model) for b, m in zip(before, resumed.members, strict=True))


def test_completions_are_logged_as_whole_transcripts(tmp_path):
    import pandas as pd

    trainer = make_trainer(tmp_path, make_team(2), num_stages=1, log_completions=True)
    trainer.train()
    files = sorted((tmp_path / "completions").glob("*.parquet"))
    assert len(files) == 2
    table = pd.read_parquet(files[-1])
    assert len(table) == 8 and set(table["step"]) == {2}
    assert all(text.startswith("x: ") and "\ny: " in text for text in table["transcript"])
    assert table["advantage"].abs().max() <= 3
    assert {"prompt", "completion", "answer_reward"} <= set(table.columns)


def test_metrics_follow_the_model(tmp_path):
    """The same run with another seed of the weights logs other figures, under the documented names."""
    logs = []
    for seed in (0, 5):
        trainer = make_trainer(tmp_path / str(seed), make_team(2, seed=seed), num_stages=2)
        trainer.train()
        logs.append([log for log in trainer.state.log_history if "reward" in log])
    names = {"kl", "kl_per_token", "kl_coef", "inner_steps", "backtracks", "rejected"}
    for log, agent in zip(logs[0], "xyxy", strict=True):
        assert {f"agent/{agent}/{name}" for name in names} <= set(log)
        assert {"team/reward", "out_of_region_rate", "rollout/messages", "rollout/tokens_decoded"} <= set(log)
        assert not any(key.startswith(f"agent/{'y' if agent == 'x' else 'x'}/") for key in log)
        assert log["rollout/messages"] == 16
    for key in ("reward", "agent/x/kl", "entropy"):
        assert logs[0][0][key] != logs[1][0][key]


def test_team_is_pushed_to_the_hub_as_one_repository(tmp_path, monkeypatch):
    uploads = []

    class Api:
        def upload_folder(self, **kwargs):
            uploads.append(kwargs)

    monkeypatch.setattr("transformers.trainer.hf_api", Api)
    monkeypatch.setattr(TeamTRTrainer, "init_hf_repo", lambda self, **kwargs: setattr(self, "hub_model_id", "me/team"))
    trainer = make_trainer(tmp_path, make_team(2))
    trainer.push_to_hub()
    assert uploads[0]["repo_id"] == "me/team" and uploads[0]["folder_path"] == str(tmp_path)
    assert (tmp_path / "team.json").is_file() and (tmp_path / "y" / "model.safetensors").is_file()
