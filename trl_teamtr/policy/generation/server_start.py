"""How a vLLM server is started to serve the agents of a team."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from trl.experimental.async_grpo.async_grpo_trainer import round_lora_rank


@dataclass(frozen=True)
class ServerStart:
    """
    What a server has to know when it is started.

    Args:
        model (`str`): Path or id of its model, which is that of its agents or the base of their adapters.
        dtype (`str`): In which it computes: `"float32"`, `"bfloat16"` or `"float16"`.
        num_agents (`int`): Number of its agents.
        ranks (`Sequence[int]`): The ranks of their adapters; empty if none has one.
        max_length (`int`): Maximum number of tokens that they read and write; `sys.maxsize` for no maximum.
    """

    model: str
    dtype: str
    num_agents: int
    ranks: Sequence[int] = ()
    max_length: int = sys.maxsize

    @property
    def max_lora_rank(self) -> int:
        """The smallest value of `--max-lora-rank` for its adapters, of which there is at least one."""
        return round_lora_rank(max(self.ranks))

    @property
    def max_loras(self) -> int:
        """Of each agent one adapter, frozen agents too, and one more while a new version replaces the old."""
        return self.num_agents + 1

    @property
    def environment(self) -> dict[str, str]:
        """Variables of its environment."""
        adapters = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"} if self.ranks else {}
        return {"VLLM_SERVER_DEV_MODE": "1", **adapters}

    @property
    def flags(self) -> list[str]:
        """Flags of `vllm serve`."""
        flags = ["--logprobs-mode", "processed_logprobs", "--generation-config", "vllm", "--dtype", self.dtype]
        if self.max_length < sys.maxsize:
            flags += ["--max-model-len", str(self.max_length)]
        if self.ranks:
            flags += ["--enable-lora", "--max-lora-rank", str(self.max_lora_rank), "--max-loras", str(self.max_loras)]
        return flags

    def __str__(self) -> str:
        variables = [f"{name}={value}" for name, value in self.environment.items()]
        return " ".join([*variables, "vllm serve", shlex.join([self.model, *self.flags])])
