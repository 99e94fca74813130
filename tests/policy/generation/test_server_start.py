"""The command that starts a server has what its agents need, and nothing that they do not."""

from trl_teamtr.policy.generation.server_start import ServerStart


def test_the_command_of_a_whole_model():
    start = ServerStart("Qwen/Qwen3-8B", "bfloat16", 1)
    flags = "--logprobs-mode processed_logprobs --generation-config vllm --dtype bfloat16"
    assert str(start) == f"VLLM_SERVER_DEV_MODE=1 vllm serve Qwen/Qwen3-8B {flags}"


def test_the_command_of_adapters_has_room_for_one_more_of_the_largest_rank():
    start = ServerStart("a model", "float32", 3, [2, 12], 512)
    assert start.environment == {"VLLM_SERVER_DEV_MODE": "1", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}
    assert str(start).startswith(
        "VLLM_SERVER_DEV_MODE=1 VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 vllm serve 'a model' --log"
    )
    assert str(start).endswith("--max-model-len 512 --enable-lora --max-lora-rank 16 --max-loras 4")
