"""An agent's folder holds the model that was saved last, in whatever form the one before was."""

import json
import os

import pytest
import torch
from families import VISION_FAMILIES, make_vision_family
from peft import LoraConfig, get_peft_model
from tiny import PROMPTS, make_config, make_model, make_tokenizer, make_trainer
from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM

from trl_teamtr import Agent, Team, TeamTRTrainer
from trl_teamtr.agents import agent_folders
from trl_teamtr.agents.agent_folders import folder_beside, put_agent, recover_agent
from trl_teamtr.agents.models import load_models
from trl_teamtr.agents.settings import SpeakingSettings
from trl_teamtr.agents.team_file import folder_of


LORA = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)


@pytest.fixture
def base(tmp_path):
    make_model(seed=4).save_pretrained(tmp_path / "base")
    make_tokenizer().save_pretrained(tmp_path / "base")
    return str(tmp_path / "base")


def logits(model):
    with torch.no_grad():
        return model.eval()(torch.tensor([[0, 2, 2, 0]])).logits


def train(agents, folder, **fields):
    torch.manual_seed(1)
    trainer = make_trainer(folder, agents, learning_rate=0.05, trust_region_radius=1.0, **fields)
    trainer.train()
    trainer.save_model()
    return [logits(member.model) for member in trainer.members]


def assert_saved(folder, expected, plain=True):
    """By every way of reading it."""
    trainer = TeamTRTrainer(
        str(folder), lambda completions, **kwargs: [0.0] * len(completions), make_config(folder), make_rows()
    )
    found = [
        [AutoModelForCausalLM.from_pretrained(folder_of(folder, name)) for name in trainer.team.names if plain],
        [member.model for member in trainer.members],
        [speaker.policy.model for speaker in Team.from_pretrained(str(folder)).speakers],
    ]
    for models in filter(None, found):
        for model, logits_of_it in zip(models, expected, strict=True):
            torch.testing.assert_close(logits(model), logits_of_it, atol=0, rtol=0)


def make_rows():
    from datasets import Dataset

    return Dataset.from_dict({"prompt": PROMPTS})


def whole(base):
    return [Agent(name, base) for name in "xy"]


def adapters(base):
    return [Agent(name, base, peft_config=LORA) for name in "xy"]


@pytest.mark.parametrize("first, second", [(whole, adapters), (adapters, whole), (adapters, adapters)])
def test_a_team_in_another_form_takes_the_place_of_the_one_before(tmp_path, base, first, second):
    before = train(first(base), tmp_path / "run")
    assert_saved(tmp_path / "run", before)
    after = train(second(base), tmp_path / "run", num_stages=2)
    assert not torch.equal(before[0], after[0])
    assert_saved(tmp_path / "run", after)


FORMS = {
    "dora": {"use_dora": True},
    "rslora": {"use_rslora": True},
    "pissa": {"init_lora_weights": "pissa"},
    "olora": {"init_lora_weights": "olora"},
    "modules_to_save": {"modules_to_save": ["lm_head"]},
    "embeddings": {"modules_to_save": ["embed_tokens"]},
    "trainable tokens": {"trainable_token_indices": [1, 2]},
    "bias": {"bias": "lora_only"},
}


@pytest.mark.parametrize("fields", FORMS.values(), ids=list(FORMS))
def test_every_form_of_adapter_is_read_back(tmp_path, base, fields):
    config = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"], **fields)
    expected = train([Agent("x", base, peft_config=config)], tmp_path / "run", num_stages=2)
    # transformers' own reading of an adapter directory does not know DoRA's magnitudes
    assert_saved(tmp_path / "run", expected, plain=not fields.get("use_dora"))


def tied(seed=0):
    config = make_model().config.to_dict() | {"tie_word_embeddings": True}
    torch.manual_seed(seed)
    return Qwen3ForCausalLM(Qwen3Config(**config))


def resized():
    model = make_model()
    model.resize_token_embeddings(4)
    return model


@pytest.mark.parametrize("make, size", [(tied, 3), (resized, 4)])
def test_tied_and_resized_embeddings_are_read_back(tmp_path, make, size):
    expected = train([Agent("x", make(), processing_class=make_tokenizer(size))], tmp_path / "run")
    assert_saved(tmp_path / "run", expected)


def assert_same_weights(folder, expected):
    """In whatever precision a trainer and a team load them, which is float32 if not said otherwise."""
    rewards = {"reward_funcs": lambda completions, **kwargs: [0.0] * len(completions)}
    trainer = TeamTRTrainer(str(folder), **rewards, args=make_config(folder), train_dataset=make_rows())
    for model in (trainer.model, Team.from_pretrained(str(folder)).speakers[0].policy.model):
        found = model.state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name].float(), weight.float()) for name, weight in expected.items())


@pytest.mark.parametrize("peft_config", [None, LORA], ids=["whole", "adapter"])
@pytest.mark.parametrize("kind", ["bfloat16", "given in bfloat16", *VISION_FAMILIES])
def test_low_precision_and_vision_language_models_are_read_back(tmp_path, base, kind, peft_config):
    """Of a vision-language checkpoint only the tokenizer is given, and saved."""
    model, size, fields = base, 3, {}
    if kind in VISION_FAMILIES:
        model, size = str(tmp_path / "vision"), 4
        make_vision_family(kind, seed=4).save_pretrained(model)
    else:
        make_model(seed=4).to(torch.bfloat16).save_pretrained(base)
        fields = {"model_init_kwargs": {"dtype": "bfloat16"}} if kind == "bfloat16" else {}
        model = base if fields else AutoModelForCausalLM.from_pretrained(base)
    agent = Agent("x", model, processing_class=make_tokenizer(size), peft_config=peft_config)
    torch.manual_seed(1)
    trainer = make_trainer(tmp_path / "run", [agent], learning_rate=0.05, trust_region_radius=1.0, **fields)
    trainer.train()
    trainer.save_model()
    assert_same_weights(tmp_path / "run", trainer.model.state_dict())
    if peft_config is None:
        plain = type(trainer.model).from_pretrained(tmp_path / "run")
        assert plain.dtype == trainer.model.dtype
        assert all(torch.equal(plain.state_dict()[n], w) for n, w in trainer.model.state_dict().items())


def test_sharded_weights_leave_no_shard_and_old_formats_no_file(tmp_path, base):
    folder = tmp_path / "run" / "x"
    make_model(seed=9).save_pretrained(folder, max_shard_size="1KB")
    torch.save({"old": torch.zeros(1)}, folder / "pytorch_model.bin")
    (folder / "notes.txt").write_text("mine")
    assert len(list(folder.glob("*.safetensors"))) > 1
    expected, _ = train(whole(base), tmp_path / "run")
    assert [path.name for path in folder.glob("*.safetensors*")] == ["model.safetensors"]
    assert not list(folder.glob("*.bin")) and (folder / "notes.txt").read_text() == "mine"
    torch.testing.assert_close(logits(AutoModelForCausalLM.from_pretrained(folder)), expected, atol=0, rtol=0)


def test_checkpoints_of_another_form_are_replaced_too(tmp_path, base):
    fields = {"save_strategy": "steps", "save_steps": 1, "num_stages": 1}
    train(whole(base), tmp_path / "run", **fields)
    train(adapters(base), tmp_path / "run", **fields)
    assert not (tmp_path / "run" / "checkpoint-2" / "x" / "model.safetensors").exists()
    assert (tmp_path / "run" / "checkpoint-2" / "x" / "adapter_model.safetensors").exists()


def test_a_team_can_be_saved_where_it_was_loaded_from(tmp_path, base):
    before = train(whole(base), tmp_path / "run")
    torch.manual_seed(2)
    trainer = make_trainer(tmp_path / "run", str(tmp_path / "run"), learning_rate=0.05, trust_region_radius=1.0)
    for member, expected in zip(trainer.members, before, strict=True):
        torch.testing.assert_close(logits(member.model), expected, atol=0, rtol=0)
    trainer.train()
    trainer.save_model()
    assert_saved(tmp_path / "run", [logits(member.model) for member in trainer.members])


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "model-00001-of-00002.safetensors"])
def test_a_folder_with_two_models_is_refused(tmp_path, base, name):
    """Older versions could leave one behind."""
    get_peft_model(make_model(), LORA).save_pretrained(tmp_path / "x")
    (tmp_path / "x" / name).write_bytes(b"")
    with pytest.raises(ValueError, match=f"Agent 'x': .* holds an adapter .* and whole weights .{name}"):
        load_models([Agent("x", str(tmp_path / "x"))], SpeakingSettings())


def put(folder, text):
    os.makedirs(folder_beside(folder))
    with open(os.path.join(folder_beside(folder), "model.safetensors"), "w") as file:
        file.write(text)


@pytest.mark.parametrize("renames", [0, 1, 2])
def test_a_kill_at_any_rename_leaves_one_whole_model(tmp_path, monkeypatch, renames):
    folder, rename, left = str(tmp_path / "x"), os.rename, [renames]
    put(folder, "old")
    put_agent(folder_beside(folder), folder)
    put(folder, "new")

    def die(*args):
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        rename(*args)

    monkeypatch.setattr(agent_folders.os, "rename", die)
    if renames < 2:
        with pytest.raises(KeyboardInterrupt):
            put_agent(folder_beside(folder), folder)
    else:
        put_agent(folder_beside(folder), folder)
    monkeypatch.setattr(agent_folders.os, "rename", rename)
    recover_agent(folder)
    assert (tmp_path / "x" / "model.safetensors").read_text() == ("new" if renames == 2 else "old")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_team_file_says_what_is_there(tmp_path, base):
    train(whole(base), tmp_path / "run")
    assert [agent["name"] for agent in json.loads((tmp_path / "run" / "team.json").read_text())["agents"]] == [
        "x",
        "y",
    ]
