"""How a team uses vLLM engines in its own process."""

import os
from dataclasses import dataclass
from typing import Any

from ...teamtr_config import TeamTRConfig


@dataclass(frozen=True)
class EngineSettings:
    """
    How a team uses engines in its own process. The fields of [`TeamTRConfig`].

    Args:
        memory (`float`): Share of the device's memory that each engine takes, with its weights.
        max_length (`int`, *optional*): Maximum number of tokens that an engine reads and writes; what its agents need if not
            given.
        rows (`int`): Messages that an engine samples at a time; further ones wait.
        sleeps (`bool`): Whether engines leave the device during updates.
        model_impl (`str`): Whose code of a model is used, vLLM's or that of transformers.
        sync_dir (`str`): Where adapters are written, under a path that all processes see.
        max_logp_difference (`float`, *optional*): Largest difference of the log-probabilities of an engine and of the policy, in
            nats per token. `None` for no check.
        revision (`str`, *optional*): Of the models, if they are not folders.
        trust_remote_code (`bool`): Whether to run code that comes with the models.
    """

    memory: float
    max_length: int | None
    rows: int
    sleeps: bool
    model_impl: str
    sync_dir: str
    max_logp_difference: float | None
    revision: str | None = None
    trust_remote_code: bool = False

    @classmethod
    def of(cls, args: TeamTRConfig) -> "EngineSettings":
        """The settings of `args`."""
        own: Any = args  # `GRPOConfig` also allows strings, which it parses when it is made
        rows = args.per_device_train_batch_size * (args.steps_per_generation or 1)
        return cls(
            args.vllm_gpu_memory_utilization,
            args.vllm_max_model_length,
            max(rows, args.per_device_eval_batch_size),
            args.vllm_enable_sleep_mode,
            args.vllm_model_impl,
            find_sync_dir(args),
            args.vllm_max_logp_difference,
            (own.model_init_kwargs or {}).get("revision"),
            args.trust_remote_code,
        )


def find_sync_dir(args: TeamTRConfig) -> str:
    """The folder of `vllm_sync_dir`."""
    folder = args.vllm_sync_dir if args.vllm_sync_dir is not None else os.path.join(str(args.output_dir), ".vllm")
    return os.path.abspath(folder)
