"""The weights of an agent on an engine: written, loaded, replaced, deleted."""

import pytest
import torch
from accelerate import Accelerator
from fake_engine import fake_engines
from tiny import make_tokenizer
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM
from vllm_teams import lora_team, save_base, speakers_of

from trl_teamtr import Agent
from trl_teamtr.policy.generation.engine import Engine
from trl_teamtr.policy.generation.placed import PlacedAdapter, PlacedBase, PlacedNull, PlacedWeights
from trl_teamtr.policy.generation.versions import Versions


@pytest.fixture
def engines(monkeypatch):
    return fake_engines(monkeypatch)


@pytest.fixture
def base(tmp_path):
    return save_base(tmp_path / "base")


def make_engine(base):
    lora = {"enable_lora": True, "max_lora_rank": 8, "max_loras": 2, "max_model_len": 128, "enable_sleep_mode": True}
    return Engine({"model": base, **lora}, Accelerator())


def test_an_adapter_has_one_version_and_one_folder(tmp_path, base, engines):
    (speaker,) = speakers_of(lora_team(base, "x"))
    placed = PlacedAdapter(speaker, make_engine(base), Versions(str(tmp_path / "sync"), "run", "x"))
    assert placed.adapter is None
    for number in (1, 2, 3):
        placed.publish()
        assert placed.adapter == f"run-x-v{number}" and placed.engine.num_adapters == 1
        assert [path.name for path in (tmp_path / "sync").iterdir()] == [placed.adapter]
    placed.engine.sleep()
    placed.withdraw()  # an engine that sleeps is not touched
    assert placed.adapter is None and not (tmp_path / "sync").exists()
    placed.engine.wake()
    placed.publish()
    assert placed.adapter == "run-x-v4" and placed.engine.num_adapters == 1


def test_a_frozen_agent_has_an_adapter_of_zeros(tmp_path, base, engines):
    pattern, frozen = speakers_of([*lora_team(base, "x"), Agent("f", base, trainable=False)])
    placed = PlacedNull(frozen, make_engine(base), Versions(str(tmp_path / "sync"), "run", "f"), pattern)
    placed.publish()
    (adapter,) = engines.made[0].adapters.values()
    weights = [weight for name, weight in adapter.named_parameters() if "lora_" in name]
    assert weights and not any(weight.any() for weight in weights)


def test_whole_weights_are_handed_over_by_the_names_of_a_checkpoint(tmp_path, base, engines, monkeypatch):
    given = {}
    monkeypatch.setattr(Engine, "reload_weights", lambda self, weights: given.update(weights))
    (speaker,) = speakers_of([Agent("w", base)])
    placed = PlacedWeights(speaker, make_engine(base))
    placed.publish()
    own = dict(speaker.policy.model.named_parameters())
    assert given.keys() == own.keys() and all(torch.equal(given[name], own[name]) for name in own)
    placed.withdraw()
    assert placed.adapter is None


def test_experts_are_handed_over_one_by_one_as_vllm_reads_them(tmp_path, base, engines, monkeypatch):
    """In transformers those of a layer are one tensor."""
    sizes = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "moe_intermediate_size": 8,
        "num_hidden_layers": 1,
        "head_dim": 8,
    }
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "num_experts": 3, "num_experts_per_tok": 2}
    config = Qwen3MoeConfig(
        vocab_size=3, max_position_embeddings=128, eos_token_id=1, pad_token_id=1, **sizes, **heads
    )
    Qwen3MoeForCausalLM(config).save_pretrained(tmp_path / "moe")
    make_tokenizer().save_pretrained(tmp_path / "moe")
    given = {}
    monkeypatch.setattr(Engine, "reload_weights", lambda self, weights: given.update(weights))
    (speaker,) = speakers_of([Agent("w", str(tmp_path / "moe"))])
    PlacedWeights(speaker, make_engine(base)).publish()  # which takes anything here
    experts = [name for name in given if "experts" in name]
    assert len(experts) == 9 and "model.layers.0.mlp.experts.2.down_proj.weight" in experts


def test_a_model_that_the_engine_began_with_stays(base, engines):
    (speaker,) = speakers_of([Agent("f", base, trainable=False)])
    placed = PlacedBase(speaker, make_engine(base))
    placed.publish()
    placed.withdraw()
    assert placed.adapter is None and engines.made[0].reloads == 0
