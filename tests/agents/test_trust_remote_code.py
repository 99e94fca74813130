"""Code that comes with a model is run for the agents that ask for it, and for no other."""

import json
import textwrap

import pytest
from peft import LoraConfig
from tiny import make_config, make_model, make_tokenizer, make_trainer
from transformers import Qwen3ForCausalLM

from trl_teamtr import Agent, load_team
from trl_teamtr.agents.member_args import agent_args
from trl_teamtr.returns.rewards import check_trust


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """Makes a directory with a model whose code writes a file named after it beside itself."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))

    def make(name):
        folder = tmp_path / name
        make_model().save_pretrained(folder)
        make_tokenizer().save_pretrained(folder)
        marker = tmp_path / f"{name}-was-run"
        (folder / "modeling_own.py").write_text(
            textwrap.dedent(f"""
                from transformers import Qwen3Config, Qwen3ForCausalLM

                open({str(marker)!r}, "a").write("x")

                class OwnConfig(Qwen3Config):
                    model_type = "own"

                class OwnForCausalLM(Qwen3ForCausalLM):
                    config_class = OwnConfig
            """)
        )
        config = json.loads((folder / "config.json").read_text())
        config |= {"model_type": "own", "architectures": ["OwnForCausalLM"]}
        config["auto_map"] = {
            "AutoConfig": "modeling_own.OwnConfig",
            "AutoModelForCausalLM": "modeling_own.OwnForCausalLM",
        }
        (folder / "config.json").write_text(json.dumps(config))
        return str(folder), marker

    return make


def lora():
    return LoraConfig(r=2, target_modules=["q_proj"])


@pytest.mark.parametrize("peft_config", [None, lora()], ids=["whole", "adapter"])
def test_code_is_never_run_unasked(tmp_path, repository, peft_config):
    path, marker = repository("a")
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        make_trainer(tmp_path / "run", [Agent("x", path, peft_config=peft_config)])
    assert not marker.exists()


@pytest.mark.parametrize("peft_config", [None, lora()], ids=["whole", "adapter"])
@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")], ids="".join)
def test_trust_in_one_agent_is_not_trust_in_the_next(tmp_path, repository, peft_config, order):
    repositories = {name: repository(name) for name in "ab"}
    team = [
        Agent(name, repositories[name][0], peft_config=peft_config, trust_remote_code=name == "a") for name in order
    ]
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        make_trainer(tmp_path / "run", team, model_init_kwargs={"dtype": "float32"})
    assert not repositories["b"][1].exists()


def test_agent_that_does_not_trust_a_base_does_not_share_it(tmp_path, repository):
    path, _ = repository("a")
    team = [Agent(name, path, peft_config=lora(), trust_remote_code=name == "x") for name in "xy"]
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        make_trainer(tmp_path / "run", team)


def test_code_is_run_for_the_agent_that_asks_and_a_saved_team_asks_again(tmp_path, repository):
    path, marker = repository("a")
    plain = tmp_path / "plain"
    make_model().save_pretrained(plain)
    make_tokenizer().save_pretrained(plain)
    team = [Agent("x", path, trust_remote_code=True), Agent("y", str(plain))]
    trainer = make_trainer(tmp_path / "run", team, beta=0.1)
    assert marker.exists() and type(trainer.model).__name__ == "OwnForCausalLM"
    assert type(trainer.ref_model).__name__ == "OwnForCausalLM" and type(trainer.peers[0].model) is Qwen3ForCausalLM
    trainer.train()
    trainer.save_model()
    assert "trust_remote_code" not in (tmp_path / "run" / "team.json").read_text()
    marker.unlink()
    assert [agent.trust_remote_code for agent in load_team(str(tmp_path / "run"))] == [False, False]
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        make_trainer(tmp_path / "again", load_team(str(tmp_path / "run")))
    assert not marker.exists()


def test_team_file_cannot_ask_for_trust(tmp_path):
    (tmp_path / "team.json").write_text(json.dumps({"agents": [{"name": "x", "trust_remote_code": True}]}))
    assert load_team(str(tmp_path))[0].trust_remote_code is False


def test_switch_of_the_config_is_for_the_whole_team(tmp_path, repository):
    path, marker = repository("a")
    make_trainer(tmp_path / "run", path, num_agents=2, trust_remote_code=True)
    assert marker.exists()


def test_settings_of_one_agent_do_not_reach_the_next(tmp_path):
    args = make_config(tmp_path, model_init_kwargs={"dtype": "float32"})
    first = agent_args(args, Agent("x", "model", trust_remote_code=True), lead=True)
    second = agent_args(args, Agent("y", "model"), lead=False)
    assert (first.trust_remote_code, second.trust_remote_code) == (True, False)
    assert first.model_init_kwargs == {"dtype": "float32", "trust_remote_code": True}
    first.model_init_kwargs["revision"] = "main"
    assert second.model_init_kwargs == args.model_init_kwargs == {"dtype": "float32"}


def test_trust_in_the_lead_is_not_trust_in_a_reward_model(tmp_path):
    args, lead = make_config(tmp_path), Agent("x", "model", trust_remote_code=True)
    with pytest.raises(ValueError, match="reward model 'me/judge' would be loaded with .* of agent 'x'"):
        check_trust(["me/judge"], None, lead, args)
    with pytest.raises(ValueError, match="reward model 'Qwen3ForCausalLM'"):
        check_trust([make_model()], [None], lead, args)
    check_trust([make_model(), len], [make_tokenizer(), None], lead, args)
    check_trust(["me/judge"], None, Agent("x", "model"), args)
    args.trust_remote_code = True
    check_trust(["me/judge"], None, lead, args)
