"""What of TRL's options of vLLM a team honours, and what it refuses with what to do instead."""

import pytest
from tiny import make_config
from vllm_teams import in_process, on_server


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"vllm_mode": "remote"}, "`vllm_mode` must be 'server', .* or 'colocate', .* got 'remote'"),
        (
            {"vllm_importance_sampling_correction": True, "vllm_importance_sampling_mode": "none"},
            "`vllm_importance_sampling_mode` must be one of 'token_truncate', .* got 'none'",
        ),
        (
            {"vllm_importance_sampling_correction": True, "loss_type": "vespo"},
            "`loss_type='vespo'` .* must be 'token_truncate' or 'token_mask', got 'sequence_mask'",
        ),
        ({"vllm_max_model_length": 64}, "`vllm_max_model_length=64` would have no effect: a vLLM server is told so"),
        ({"vllm_enable_sleep_mode": True}, "`vllm_enable_sleep_mode=True` would have no effect"),
        ({"vllm_tensor_parallel_size": 2}, "`vllm_tensor_parallel_size=2` would have no effect"),
        ({"vllm_structured_outputs_regex": "a*"}, "`vllm_structured_outputs_regex='a.'` would have no effect"),
        (
            {"vllm_group_port": 1},
            "`vllm_group_port=1` would have no effect: weights are not sent over NCCL, .*`vllm_sync_dir`",
        ),
        ({"vllm_server_timeout": 0.0}, "`vllm_server_timeout` must be a positive number of seconds, got 0.0"),
        ({"vllm_max_logp_difference": 0.0}, "`vllm_max_logp_difference` must be a positive .* or `None` .* got 0.0"),
        ({"log_occupancy": True}, "`log_occupancy` is not supported with `use_vllm=True`"),
        ({"log_certificate": True, "log_occupancy": True}, "`log_occupancy` and `log_certificate` is not supported"),
    ],
    ids=str,
)
def test_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        make_config("x", **on_server("http://a", **fields))


@pytest.mark.parametrize(
    "fields, message",
    [
        (
            {"vllm_tensor_parallel_size": 2},
            "`vllm_tensor_parallel_size=2` is not supported with .*'colocate'.*'server'",
        ),
        ({"offload_idle_agents": True}, "`offload_idle_agents=True` is not supported with `vllm_mode='colocate'`"),
        (
            {"vllm_server_base_url": "http://a"},
            "`vllm_server_base_url='http://a'` would have no effect with .*'server'",
        ),
        ({"vllm_server_timeout": 9.0, "vllm_server_port": 1}, "`vllm_server_port=1`, `vllm_server_timeout=9.0` would"),
        ({"vllm_group_port": 1}, "`vllm_group_port=1` would have no effect: .* from memory"),
        (
            {"vllm_gpu_memory_utilization": 1.5},
            "`vllm_gpu_memory_utilization` is a share .* above 0 and up to 1, got 1.5",
        ),
        ({"vllm_gpu_memory_utilization": 0.0}, "`vllm_gpu_memory_utilization` is a share .* got 0.0"),
        ({"vllm_max_model_length": 1}, "`vllm_max_model_length` must be at least 2 or `None`, got 1"),
        ({"vllm_structured_outputs_regex": "a*"}, "`vllm_structured_outputs_regex='a.'` would have no effect"),
        ({"log_certificate": True}, "`log_certificate` is not supported with `use_vllm=True`"),
        (
            {"vllm_importance_sampling_correction": True, "vllm_importance_sampling_mode": "none"},
            "`vllm_importance_sampling_mode` must be one of 'token_truncate', .* got 'none'",
        ),
    ],
    ids=str,
)
def test_refused_in_this_process(fields, message):
    with pytest.raises(ValueError, match=message):
        make_config("x", **in_process(**fields))


def test_of_an_engine_in_this_process():
    args = make_config(
        "x", **in_process(vllm_max_model_length=64, vllm_enable_sleep_mode=True, vllm_model_impl="auto")
    )
    assert args.vllm_mode == "colocate" and args.vllm_enable_sleep_mode


def test_fsdp_is_refused_with_vllm_too():
    with pytest.raises(ValueError, match="FSDP is not supported"):
        make_config("x", **in_process(fsdp="full_shard"))


def test_without_vllm_its_options_are_left_alone():
    args = make_config("x", vllm_mode="colocate", vllm_max_model_length=64, log_occupancy=True)
    assert not args.use_vllm and args.vllm_sync_dir is None and args.vllm_max_logp_difference == 1.0
