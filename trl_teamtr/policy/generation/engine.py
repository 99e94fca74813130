"""A vLLM engine in this process."""

import contextlib
import itertools
import os
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import patch_environment
from accelerate.utils.memory import clear_device_cache
from trl.trainer.utils import ensure_master_addr_port

from . import vllm_package


@dataclass(frozen=True)
class Sampled:
    """
    What an engine has sampled after a context.

    Args:
        ids (`list[int]`): The tokens.
        logps (`list[float]`): Their log-probabilities, in nats.
        finish_reason (`str`, *optional*): vLLM's word for why it ended.
    """

    ids: list[int]
    logps: list[float]
    finish_reason: str | None


class Engine:
    """
    A vLLM engine in this process, with one model and adapters on it. What it draws does not touch the random states of the
    process.

    All processes make their engines together. After that each uses its own for itself.

    Args:
        arguments (`dict`): Of `vllm.LLM`.
        accelerator ([`~accelerate.Accelerator`]): Of the processes, each of which has such an engine.

    Attributes:
        is_asleep (`bool`): Whether its weights wait in the memory of the host.

    Raises:
        `ImportError`: If vLLM is not installed, or in an unknown version.
    """

    def __init__(self, arguments: dict[str, Any], accelerator: Accelerator):
        self._vllm, self._device = vllm_package.find_vllm(), accelerator.device
        # Never used twice: an engine would answer with the adapter that it has under a number, whatever its path
        self._numbers = itertools.count(1)
        self._adapters: dict[str, Any] = {}
        self.is_asleep = False
        # vLLM seeds the process, and reads its place among the others from the environment
        with self._own_randomness(), _as_launched(accelerator):
            self._llm = self._vllm.LLM(seed=accelerator.process_index, **arguments)

    def generate(
        self, contexts: Sequence[list[int]], fields: Sequence[dict[str, Any]], adapters: Sequence[str | None]
    ) -> list[Sampled]:
        """
        Sample after all of `contexts` together.

        Args:
            contexts (`Sequence[list[int]]`): Token ids.
            fields (`Sequence[dict]`): For each of them the fields of `vllm.SamplingParams`.
            adapters (`Sequence[str]`): For each of them the name of a loaded adapter, or `None` for the model itself.
        """
        if not contexts:
            return []
        params = [self._vllm.SamplingParams(**own, detokenize=False) for own in fields]
        prompts = [{"prompt_token_ids": context} for context in contexts]
        loras = [None if name is None else self._adapters[name] for name in adapters]
        with self._own_randomness():
            outputs = self._llm.generate(prompts, params, lora_request=loras, use_tqdm=False)
        return [_read(output, context) for output, context in zip(outputs, contexts, strict=True)]

    def load_adapter(self, name: str, folder: str):
        """Load the adapter in `folder`, under a name that was never used."""
        request = self._vllm.LoRARequest(name, next(self._numbers), folder)
        self._llm.llm_engine.add_lora(request)
        self._adapters[name] = request

    def knows(self, name: str) -> bool:
        """Whether it has an adapter of this name."""
        return name in self._adapters

    def unload_adapter(self, name: str):
        """Forget an adapter."""
        self._llm.llm_engine.remove_lora(self._adapters.pop(name).lora_int_id)

    @property
    def num_adapters(self) -> int:
        """Number of adapters that it has in memory."""
        return len(self._llm.llm_engine.list_loras())

    def reload_weights(self, weights: Iterable[tuple[str, torch.Tensor]]):
        """Replace the weights of the model by `weights`, by the names of a checkpoint, and forget its caches."""
        with self._own_randomness():
            self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": weights})
        self._llm.reset_prefix_cache()

    def sleep(self):
        """Move its weights to the memory of the host, and forget the keys and values that it has cached."""
        # Level 1. Level 2 would forget the weights, of which those under an adapter are nowhere else in this form
        self._llm.sleep(level=1)
        self.is_asleep = True

    def wake(self):
        """Bring its weights back to the device. Adapters are to be loaded again."""
        clear_device_cache()  # of what the training has left, which vLLM cannot use
        self._llm.wake_up()
        for name in list(self._adapters):
            self.unload_adapter(name)
        self.is_asleep = False

    @contextlib.contextmanager
    def _own_randomness(self) -> Iterator[None]:
        """Context that leaves the random states of the process as they were."""
        python, numpy = random.getstate(), np.random.get_state()
        try:
            with torch.random.fork_rng([self._device] if self._device.type == "cuda" else []):
                yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


@contextlib.contextmanager
def _as_launched(accelerator: Accelerator) -> Iterator[None]:
    """Context with the variables by which vLLM finds the other processes, as torchrun sets them; without a launch, for one."""
    with patch_environment(
        rank=accelerator.process_index,
        local_rank=accelerator.local_process_index,
        world_size=accelerator.num_processes,
        master_addr=os.environ.get("MASTER_ADDR", ""),
        master_port=os.environ.get("MASTER_PORT", ""),
        vllm_enable_v1_multiprocessing=0,  # vLLM sets it too, and leaves it
    ):
        ensure_master_addr_port()
        yield


def _read(output: Any, context: list[int]) -> Sampled:
    if list(output.prompt_token_ids) != context:  # left over from a turn that an error has ended
        raise RuntimeError("A vLLM engine answered another request than it was asked. Start the run again.")
    (choice,) = output.outputs
    ids = list(choice.token_ids)
    logps = [position[token].logprob for position, token in zip(choice.logprobs, ids, strict=True)]
    return Sampled(ids, logps, choice.finish_reason)
