"""What all benchmarks set for a trainer: float32 on the CPU, and nothing saved, reported or drawn."""

QUIET = {
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "save_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
}
