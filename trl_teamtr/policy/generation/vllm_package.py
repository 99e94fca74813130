"""vLLM as a package of this environment: imported by those who run it in this process, and by nobody else."""

import importlib
import importlib.util
from dataclasses import dataclass
from typing import Any

from packaging.specifiers import SpecifierSet
from packaging.version import Version


# Those of which the calls made here were run; the upper bound is the next version
VERSIONS = SpecifierSet(">=0.32,<0.33")


@dataclass(frozen=True)
class Vllm:
    """
    The classes of vLLM that are used here.

    Args:
        LLM, SamplingParams, LoRARequest (`type`): By their names there.
    """

    LLM: Any
    SamplingParams: Any
    LoRARequest: Any


def find_vllm() -> Vllm:
    """
    What is used of `vllm`. Importing it takes some seconds.

    Raises:
        `ImportError`: If it is not installed here, or in a version whose calls are not known.
    """
    elsewhere = "Or start servers, which have an environment of their own: `vllm_mode='server'` (docs/vllm.md)."
    if importlib.util.find_spec("vllm") is None:
        raise ImportError(
            "`vllm_mode='colocate'` runs vLLM in the process of the training, and its environment has no vLLM. Install it: `pip "
            f"install 'vllm{VERSIONS}'`, then the transformers of the training again with `--no-deps`. {elsewhere}"
        )
    vllm = importlib.import_module("vllm")
    found = Version(vllm.__version__).base_version
    if found not in VERSIONS:
        raise ImportError(
            f"`vllm_mode='colocate'` was written for vllm{VERSIONS}, and {vllm.__version__} is installed. Install one of those. "
            f"{elsewhere}"
        )
    return Vllm(vllm.LLM, vllm.SamplingParams, importlib.import_module("vllm.lora.request").LoRARequest)
