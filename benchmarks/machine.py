"""The versions and the machine that a benchmark ran with, in one line of its output."""

import os
import platform
from importlib.metadata import version


PACKAGES = ("torch", "trl", "transformers", "peft", "accelerate", "datasets")


def describe_machine() -> str:
    import torch

    packages = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    gibibytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return (
        f"{packages}, Python {platform.python_version()}; {os.cpu_count()} cores, {gibibytes:.0f} GiB, {gpu}, "
        f"threads per process: {torch.get_num_threads()}"
    )
