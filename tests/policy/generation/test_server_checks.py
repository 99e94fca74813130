"""What a server must have been started with: each fault by name, with the flag to pass."""

import pytest
import torch
from fake_vllm import serving
from tiny import make_model, make_tokenizer
from vllm_teams import lora_team, make_fleet, make_lora, save_base, speakers_of

from trl_teamtr import Agent
from trl_teamtr.policy.generation.client import ServerClient
from trl_teamtr.policy.generation.server_checks import check_agents, check_server, start_for
from trl_teamtr.policy.generation.server_start import ServerStart


FAULTS = [
    ({"model_config": {"model": "other"}}, "its model is 'other', theirs is '.*base': `--model .*base`"),
    ({"model_config": {"max_model_len": 64}}, "at most 64 tokens, they read up to 128: `--max-model-len 128`"),
    ({"model_config": {"logprobs_mode": "raw_logprobs"}}, "'raw_logprobs'.*`--logprobs-mode processed_logprobs`"),
    ({"model_config": {"generation_config": "auto"}}, "'auto' of its model: `--generation-config vllm`"),
    ({"model_config": {"dtype": "torch.bfloat16"}}, "computes in bfloat16, agent 'x' would here in float32: `--dtype float32`"),
    ({"model_config": {"quantization": "fp8"}}, "its weights are fp8, theirs are not: the same `--quantization`"),
    ({"lora_config": None}, "takes no adapters: `--enable-lora --max-lora-rank 8 --max-loras 3`"),
    ({"lora_config": {"max_loras": 2}}, "holds 2 adapters, 3 are needed: `--max-loras 3`"),
    ({"scheduler_config": {"enable_chunked_prefill": True}}, "dies where it splits a prompt.*`--no-enable-chunked-prefill`"),
    ({"parallel_config": {"data_parallel_size": 2}}, "2 replicas.*`--data-parallel-size 1`"),
]  # fmt: skip


@pytest.fixture
def base(tmp_path):
    return save_base(tmp_path / "base")


@pytest.mark.parametrize("config, message", FAULTS, ids=[str(config) for config, _ in FAULTS])
def test_each_fault_names_the_flag(base, tmp_path, config, message):
    with serving(base, config=config) as server:
        with pytest.raises(ValueError, match=f"was not started as 'x', 'y' need it:\n- .*{message}"):
            make_fleet(speakers_of(lora_team(base)), server.url, tmp_path / "sync")
        assert server.posts == []  # nothing is loaded before


def test_all_faults_are_listed_at_once(base, tmp_path):
    with serving(base, config={"model_config": {"logprobs_mode": "raw", "max_model_len": 1}}) as server:
        with pytest.raises(ValueError) as caught:
            make_fleet(speakers_of(lora_team(base)), server.url, tmp_path / "sync")
        assert str(caught.value).count("\n- ") == 2


def test_an_adapter_of_a_larger_rank_needs_a_larger_server(base, tmp_path):
    agents = [Agent("x", base, peft_config=make_lora(r=12))]
    with serving(base) as server, pytest.raises(ValueError, match="rank 8 at most: `--max-lora-rank 16`"):
        make_fleet(speakers_of(agents), server.url, tmp_path / "sync")


def test_a_server_that_tells_nothing_or_takes_nothing_names_its_environment(base, tmp_path):
    with serving(base, dev_mode=False) as server, pytest.raises(ValueError, match="`VLLM_SERVER_DEV_MODE=1`"):
        make_fleet(speakers_of(lora_team(base)), server.url, tmp_path / "sync")
    with serving(base, lora_updating=False) as server:
        with pytest.raises(ValueError, match="`VLLM_ALLOW_RUNTIME_LORA_UPDATING=1`"):
            make_fleet(speakers_of(lora_team(base)), server.url, tmp_path / "sync")
        make_fleet(speakers_of([Agent("x", base)]), server.url, tmp_path / "sync")  # has no adapter


def test_a_server_that_is_not_there_is_named_with_how_to_start_it(base, tmp_path):
    with serving(base) as server:
        url = server.url
    with pytest.raises(
        ConnectionError, match=f"No vLLM server answered at {url} within 0.1 seconds.*vllm serve {base}"
    ):
        make_fleet(speakers_of(lora_team(base)), url, tmp_path / "sync", timeout=0.1)


def test_the_command_fits_the_agents(base):
    whole = ServerStart(base, "float32", 1, [], 128)
    assert start_for(speakers_of([Agent("x", base)])) == whole
    assert start_for(speakers_of(lora_team(base, "xyz"))) == ServerStart(base, "float32", 3, [2, 2, 2], 128)


def test_messages_are_sampled_in_the_dtype_of_the_run(base):
    (speaker,) = speakers_of([Agent("x", base)])
    assert start_for([speaker]).dtype == "float32"
    speaker.policy.model.to(torch.bfloat16)
    assert start_for([speaker]).dtype == "bfloat16"


def test_a_model_of_the_same_folder_is_the_same(base, tmp_path):
    (tmp_path / "link").symlink_to(base)
    with serving(base) as server:
        check_server(ServerClient(server.url, 1.0), speakers_of(lora_team(str(tmp_path / "link"))))


def test_which_agents_may_share_a_server(base, tmp_path):
    whole, adapter, frozen = Agent("w", base), lora_team(base, "x")[0], Agent("f", base, trainable=False)
    check_agents(speakers_of([adapter, frozen]), "http://a")
    check_agents(speakers_of([whole]), "http://a")
    for other in (adapter, frozen, Agent("v", base)):
        with pytest.raises(
            ValueError, match="'w' trains all its weights.*'w', '.' share http://a.*vllm_server_base_url"
        ):
            check_agents(speakers_of([whole, other]), "http://a")
    other_base = lora_team(save_base(tmp_path / "other"), "y")[0]
    with pytest.raises(ValueError, match="different base models .'x' has '.*base', 'y' has '.*other'"):
        check_agents(speakers_of([adapter, other_base]), "http://a")
    nameless = Agent("n", make_model(), processing_class=make_tokenizer())
    with pytest.raises(ValueError, match="'n' has a model that was loaded from no path"):
        check_agents(speakers_of([nameless]), "http://a")


def test_a_server_on_a_gpu_may_split_prompts(base):
    with serving(
        base, config={"device_config": {"device": "cuda"}, "scheduler_config": {"enable_chunked_prefill": True}}
    ) as server:
        check_server(ServerClient(server.url, 1.0), speakers_of(lora_team(base)))
