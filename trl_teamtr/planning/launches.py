"""Over how many processes a run is spread, and what of it: from accelerate's config."""

from dataclasses import dataclass
from typing import Any

from accelerate.commands.config.config_args import load_config_from_file

from ..teamtr_config import TeamTRConfig


@dataclass(frozen=True)
class Launch:
    """
    A launch.

    Args:
        num_processes (`int`): Number of processes, one for each device.
        zero_stage (`int`): Stage of DeepSpeed's ZeRO; 0 for none.
        offload_optimizer (`bool`): Whether ZeRO keeps master weights and moments in host memory.
        offload_weights (`bool`): Whether ZeRO keeps weights in host memory.
        mixed_precision (`str`): `"no"`, `"bf16"` or `"fp16"`.
        on_cpu (`bool`): Whether it trains on a CPU, where device memory is host memory.
    """

    num_processes: int = 1
    zero_stage: int = 0
    offload_optimizer: bool = False
    offload_weights: bool = False
    mixed_precision: str = "no"
    on_cpu: bool = False

    def __post_init__(self):
        if self.zero_stage not in (0, 1, 2, 3):
            raise ValueError(f"ZeRO has the stages 1, 2 and 3, got {self.zero_stage}. Use 0 for none.")
        if self.num_processes < 1:
            raise ValueError(f"A launch has at least one process, got {self.num_processes}.")

    @classmethod
    def of(cls, args: TeamTRConfig) -> "Launch":
        """That of the present process."""
        precision, plugin = str(args.mixed_precision), args.deepspeed_plugin
        if plugin is None:
            return cls(args.world_size, mixed_precision=precision, on_cpu=args.use_cpu)
        config = plugin.deepspeed_config.get("zero_optimization", {})
        return cls(
            args.world_size,
            plugin.zero_stage,
            config.get("offload_optimizer", {}).get("device", "none") != "none",
            config.get("offload_param", {}).get("device", "none") != "none",
            precision,
            args.use_cpu,
        )

    @classmethod
    def read(cls, path: str, num_processes: int | None = None) -> "Launch":
        """
        That of a config file of accelerate, such as accelerate_configs/zero3.yaml.

        Args:
            path (`str`): The file.
            num_processes (`int`, *optional*): As the option of `accelerate launch`, overrides the file's.
        """
        config: Any = load_config_from_file(path)
        zero = config.deepspeed_config or {}
        return cls(
            num_processes or config.num_processes,
            int(zero.get("zero_stage", 0)),
            zero.get("offload_optimizer_device", "none") != "none",
            zero.get("offload_param_device", "none") != "none",
            config.mixed_precision or "no",
            bool(config.use_cpu),
        )
