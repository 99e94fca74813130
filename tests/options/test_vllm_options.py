"""What of TRL's options of vLLM a team honours, and what it refuses with what to do instead."""

import pytest
from tiny import make_config
from vllm_teams import on_server


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"vllm_mode": "colocate"}, "`vllm_mode='colocate'` is not supported .*set `vllm_mode='server'`"),
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
        ({"vllm_structured_outputs_regex": "a*"}, "`vllm_structured_outputs_regex='a.'` would have no effect"),
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


def test_without_vllm_its_options_are_left_alone():
    args = make_config("x", vllm_mode="colocate", vllm_max_model_length=64, log_occupancy=True)
    assert not args.use_vllm and args.vllm_sync_dir is None and args.vllm_max_logp_difference == 1.0
