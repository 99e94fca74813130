"""Of which model an agent is, and which adapters no server can serve."""

import pytest
from vllm_teams import lora_team, make_lora, save_base, speakers_of

from trl_teamtr import Agent
from trl_teamtr.policy.generation.servable import base_of, is_adapter, is_quantized, rank_of


def test_the_base_of_an_adapter_is_that_of_its_model(tmp_path):
    base = save_base(tmp_path / "base")
    adapter, whole = speakers_of([*lora_team(base, "x"), Agent("y", base)])
    assert base_of(adapter) == base_of(whole) == base
    assert is_adapter(adapter) and not is_adapter(whole) and rank_of(adapter) == 2
    assert not is_quantized(adapter) and not is_quantized(whole)
    whole.policy.model.config.quantization_config = {"quant_method": "fp8"}
    assert is_quantized(whole)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"use_dora": True}, "'x' has an adapter that vLLM cannot serve: DoRA"),
        ({"bias": "lora_only"}, "`bias='lora_only'`"),
        ({"modules_to_save": ["lm_head"]}, "`modules_to_save="),
        ({"target_modules": ["lm_head"]}, "targets the head or the embeddings"),
        ({"rank_pattern": {"q_proj": 4}}, "an adapter with rank_pattern, but vLLM scales all modules"),
        ({"alpha_pattern": {"q_proj": 4}}, "an adapter with alpha_pattern, but vLLM scales all modules"),
        ({"init_lora_weights": "olora"}, "init_lora_weights='olora', which rewrites its base"),
    ],
)
def test_adapters_that_a_server_cannot_serve_are_refused(tmp_path, fields, message):
    agent = Agent("x", save_base(tmp_path / "base"), peft_config=make_lora(**fields))
    (speaker,) = speakers_of([agent])
    with pytest.raises(ValueError, match=message):
        rank_of(speaker)
