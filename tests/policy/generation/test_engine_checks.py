"""Which agents share an engine, what it is made with, and what is refused by name."""

import pytest
import torch
from tiny import make_model, make_tokenizer
from vllm_teams import lora_team, make_lora, save_base, speakers_of

from trl_teamtr import Agent
from trl_teamtr.policy.generation.engine_checks import check_engines, engine_arguments, share_engines
from trl_teamtr.policy.generation.engine_settings import EngineSettings


@pytest.fixture
def base(tmp_path):
    return save_base(tmp_path / "base")


def settings(**fields):
    defaults = {"memory": 0.3, "max_length": None, "rows": 16, "sleeps": False, "model_impl": "vllm"}
    return EngineSettings(**(defaults | {"sync_dir": "sync", "max_logp_difference": 1.0} | fields))


def names(groups):
    return ["".join(speaker.name for speaker in group) for group in groups]


def test_agents_on_one_base_share_an_engine_but_for_those_that_train_it(tmp_path, base):
    (tmp_path / "link").symlink_to(base)
    other = save_base(tmp_path / "other", seed=3)
    agents = [*lora_team(base), Agent("w", base), Agent("v", base), Agent("f", base, trainable=False)]
    agents += [Agent("g", other, trainable=False), *lora_team(str(tmp_path / "link"), "z")]
    speakers = speakers_of(agents)
    assert names(share_engines(speakers)) == ["xyfz", "w", "v", "g"]
    speakers[-1].policy.model.to(torch.bfloat16)
    assert names(share_engines(speakers)) == ["xyf", "w", "v", "g", "z"]


def test_an_engine_is_made_for_its_agents(base):
    team = speakers_of([*lora_team(base), Agent("f", base, trainable=False)])
    found = engine_arguments(team, settings(rows=24))
    assert found["model"] == base and found["dtype"] == "float32" and found["max_model_len"] == 128
    assert (found["max_loras"], found["max_lora_rank"], found["enable_lora"]) == (3, 8, True)
    assert found["max_num_seqs"] == 24 and found["gpu_memory_utilization"] == 0.3
    assert found["logprobs_mode"] == "processed_logprobs" and found["generation_config"] == "vllm"
    assert found["enable_chunked_prefill"] is False and found["enforce_eager"] is True  # on a CPU
    whole = engine_arguments(speakers_of([Agent("w", base, trust_remote_code=True)]), settings(max_length=256))
    assert whole["max_model_len"] == 256 and whole["trust_remote_code"] and "enable_lora" not in whole


def test_a_length_that_is_too_short_is_refused(base):
    team = speakers_of(lora_team(base), max_completion_length=4)
    with pytest.raises(ValueError, match="`vllm_max_model_length=64`, but 'x', 'y' read and write up to 128 tokens"):
        engine_arguments(team, settings(max_length=64))


def test_an_adapter_that_vllm_cannot_hold_is_refused(base):
    team = speakers_of([Agent("x", base, peft_config=make_lora(use_dora=True))])
    with pytest.raises(ValueError, match="'x' has an adapter that vLLM cannot serve"):
        engine_arguments(team, settings())


def test_more_engines_than_memory_are_refused(tmp_path, base):
    team = [*lora_team(base), Agent("w", base), Agent("v", save_base(tmp_path / "other", seed=3))]
    groups = share_engines(speakers_of(team))
    check_engines(groups, settings(memory=0.3))
    with pytest.raises(
        ValueError, match=r"3 vLLM engines .*base' for 'x', 'y', .*0.5 of .*: 1.5 in all. Set .* below 0.33"
    ):
        check_engines(groups, settings(memory=0.5))


def test_sleep_on_a_cpu_is_refused(base):
    with pytest.raises(ValueError, match="`vllm_enable_sleep_mode=True` moves .* the run is on a CPU"):
        check_engines([speakers_of(lora_team(base))], settings(sleeps=True))


def test_agents_that_no_engine_can_have_are_refused(base):
    nameless = Agent("n", make_model(), processing_class=make_tokenizer())
    with pytest.raises(ValueError, match="'n' has a model that was loaded from no path, so no vLLM engine"):
        check_engines([speakers_of([nameless])], settings())
    elsewhere = Agent("e", base, vllm_server_base_url="http://a")
    with pytest.raises(ValueError, match="'e' has `vllm_server_base_url`, which has no effect with .*'colocate'"):
        check_engines([speakers_of([elsewhere])], settings())
    (quantized,) = speakers_of([Agent("q", base)])
    quantized.policy.model.config.quantization_config = {"quant_method": "bitsandbytes"}
    with pytest.raises(ValueError, match="'q' has a quantized model, which an engine in this process does not load"):
        check_engines([[quantized]], settings())
