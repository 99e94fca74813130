"""Weights are read back as they were written, for every architecture, and nothing is left out in silence."""

import pytest
import torch
from families import FAMILIES, make_family
from peft import LoraConfig, get_peft_model
from resuming import StopAfter
from safetensors.torch import load_file, save_file
from tiny import make_model, make_tokenizer, make_trainer

from trl_teamtr import Agent
from trl_teamtr.runs.weights import load_weights


def same(model, other):
    one, two = model.state_dict(), other.state_dict()
    assert one.keys() == two.keys()
    return [name for name in one if not torch.equal(one[name], two[name])]


@pytest.mark.parametrize("kind", FAMILIES)
def test_every_architecture_is_read_back_into_a_model_of_another_seed(tmp_path, kind):
    saved, other = make_family(kind, seed=0), make_family(kind, seed=1)
    assert same(saved, other)
    saved.save_pretrained(tmp_path)
    load_weights(other, str(tmp_path))
    assert same(saved, other) == []


@pytest.mark.parametrize("kind", ["qwen3", "mixtral", "gpt2"])
def test_shards_and_other_dtypes(tmp_path, kind):
    saved, other = make_family(kind, seed=0).bfloat16(), make_family(kind, seed=1).bfloat16()
    saved.save_pretrained(tmp_path, max_shard_size="4KB")
    load_weights(other, str(tmp_path))
    assert same(saved, other) == [] and other.dtype == torch.bfloat16


ADAPTERS = {
    "lora": {},
    "dora": {"use_dora": True},
    "rslora": {"use_rslora": True},
    "modules_to_save": {"modules_to_save": ["lm_head"]},
    "trainable tokens": {"trainable_token_indices": [1, 2]},
}


def adapter(seed, **fields):
    config, base = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"], **fields), make_model()
    torch.manual_seed(seed)
    model = get_peft_model(base, config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn(parameter.shape)
    return model


@pytest.mark.parametrize("fields", ADAPTERS.values(), ids=list(ADAPTERS))
def test_adapters_are_read_back(tmp_path, fields):
    saved, other = adapter(1, **fields), adapter(2, **fields)
    assert same(saved, other)
    saved.save_pretrained(tmp_path)
    load_weights(other, str(tmp_path))
    assert same(saved, other) == []


def change(folder, apply, name="model.safetensors"):
    tensors = load_file(folder / name)
    apply(tensors)
    save_file(tensors, folder / name, metadata={"format": "pt"})


@pytest.mark.parametrize(
    "apply, message",
    [
        (lambda tensors: tensors.pop("model.norm.weight"), "is missing: model.norm.weight"),
        (lambda tensors: tensors.update(extra=torch.zeros(1)), "does not belong to this model: extra"),
    ],
)
def test_what_is_missing_or_unexpected_is_named(tmp_path, apply, message):
    model = make_family("llama", seed=0)
    model.save_pretrained(tmp_path)
    change(tmp_path, apply)
    before = make_family("llama", seed=1)
    with pytest.raises(ValueError, match=message):
        load_weights(before, str(tmp_path))
    assert same(before, make_family("llama", seed=1)) == []  # nothing was loaded


def test_an_adapter_of_another_rank_or_other_modules_is_refused(tmp_path):
    adapter(1).save_pretrained(tmp_path)
    other = get_peft_model(make_model(), LoraConfig(task_type="CAUSAL_LM", r=3, target_modules=["q_proj"]))
    with pytest.raises(ValueError, match="has another shape: .*lora_A"):
        load_weights(other, str(tmp_path))
    other = get_peft_model(make_model(), LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["v_proj"]))
    with pytest.raises(ValueError, match="is missing: .*v_proj"):
        load_weights(other, str(tmp_path))


@pytest.mark.parametrize("kind", ["mixtral", "qwen3_moe", "gemma2", "bamba"])
def test_a_run_resumes_to_the_same_bits_and_loads_its_best_model(tmp_path, kind):
    def team(seed):
        return [
            Agent(name, make_family(kind, seed + i, vocab_size=3), processing_class=make_tokenizer())
            for i, name in enumerate("xy")
        ]

    fields = {"num_stages": 2, "save_strategy": "steps", "save_steps": 1, "learning_rate": 1e-3}
    whole = make_trainer(tmp_path / "whole", team(0), **fields)
    whole.train()
    make_trainer(tmp_path / "run", team(0), callbacks=[StopAfter(3)], **fields).train()
    resumed = make_trainer(tmp_path / "run", team(5), **fields)  # other weights, which must not matter
    resumed.train(resume_from_checkpoint=True)
    for one, other in zip(whole.members, resumed.members, strict=True):
        assert same(one.model, other.model) == []
    resumed.state.best_model_checkpoint = str(tmp_path / "run" / "checkpoint-4")
    expected = [{n: t.clone() for n, t in member.model.state_dict().items()} for member in resumed.members]
    for member in resumed.members:
        with torch.no_grad():
            for parameter in member.model.parameters():
                parameter.zero_()
    resumed._load_best_model()
    for member, state in zip(resumed.members, expected, strict=True):
        assert all(torch.equal(tensor, state[name]) for name, tensor in member.model.state_dict().items())
