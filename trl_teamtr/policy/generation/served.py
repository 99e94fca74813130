"""The weights of an agent on a server: an adapter, a whole model, or those that the server was started with."""

import math
import os
from typing import Any, Protocol

import torch
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import load_file, save_file
from trl.experimental.async_grpo.async_grpo_trainer import save_lora_adapter
from trl.trainer.utils import maybe_gather_lm_head_ctx

from ..speaker import Speaker
from .client import ServerClient
from .versions import Versions


class Served(Protocol):
    """
    The weights of an agent on a server.

    Attributes:
        speaker ([`Speaker`]): The agent.
    """

    speaker: Speaker

    @property
    def model(self) -> str:
        """The name by which requests ask for these weights."""
        ...

    def publish(self):
        """Give the server the present weights. All processes call this; one of them speaks to the server."""
        ...

    def withdraw(self, from_server: bool):
        """Delete what was written and, with `from_server`, what the server holds. One process calls this."""
        ...


class ServedAdapter:
    """
    A LoRA adapter on the server of its base. The server holds one version of it; it is never merged.

    Args:
        speaker ([`Speaker`]): The agent, whose model is a [`~peft.PeftModel`].
        client ([`ServerClient`]): Of the server.
        versions ([`Versions`]): Of the agent.
    """

    def __init__(self, speaker: Speaker, client: ServerClient, versions: Versions):
        self.speaker, self._client, self._versions = speaker, client, versions
        self._loaded: list[str] = []

    @property
    def model(self) -> str:
        return self._versions.name

    def publish(self):
        versions, accelerator = self._versions, self.speaker.policy.accelerator
        versions.advance()
        if accelerator.is_main_process:
            os.makedirs(os.path.dirname(versions.folder), exist_ok=True)
        self._save(versions.folder)
        if not accelerator.is_main_process:
            return
        self._loaded.append(versions.name)
        self._client.load_lora_adapter(versions.name, versions.folder, math.ceil(self._client.server_timeout))
        self._unload(self._loaded[:-1])
        self._loaded = self._loaded[-1:]
        # Not the folder of the last version: an engine that has not yet forgotten it may read it again
        versions.delete(versions.names_before()[1:3])

    def _save(self, folder: str):
        """Write the version to load. All processes call this."""
        save_adapter(self.speaker, folder)

    def withdraw(self, from_server: bool):
        if from_server:
            self._unload(self._loaded)
        self._loaded = []
        self._versions.delete([self._versions.name, *self._versions.names_before()])

    def _unload(self, names: list[str]):
        for name in names:
            self._client.unload_lora_adapter(name, math.ceil(self._client.server_timeout))


class ServedNull(ServedAdapter):
    """
    A frozen agent with the weights that the server was started with, asked for by an adapter that adds nothing to them: on a
    CPU, vLLM computes a row without an adapter with the adapter of another row of its batch (vllm#48421).

    Args:
        speaker ([`Speaker`]): The agent.
        client ([`ServerClient`]): Of the server.
        versions ([`Versions`]): Of the agent.
        pattern ([`Speaker`]): An agent with an adapter on the same server.
    """

    def __init__(self, speaker: Speaker, client: ServerClient, versions: Versions, pattern: Speaker):
        super().__init__(speaker, client, versions)
        self._pattern = pattern

    def _save(self, folder: str):
        save_null_adapter(self._pattern, folder)


class ServedWeights:
    """
    All weights of an agent, on a server of its own.

    Args:
        speaker ([`Speaker`]): The agent.
        client ([`ServerClient`]): Of the server.
        versions ([`Versions`]): Of the agent.
        model (`str`): The name of the server's model, which stays.
    """

    def __init__(self, speaker: Speaker, client: ServerClient, versions: Versions, model: str):
        self.speaker, self.model = speaker, model
        self._client, self._versions = client, versions
        self._instance = ""

    def is_forgotten(self) -> bool:
        """
        Whether the server was started again since the last publication. Its model has the same name as before, so no request
        fails: it would be answered with the weights that the server was started with.
        """
        return self._client.instance() != self._instance

    def publish(self):
        versions = self._versions
        versions.advance()
        self.speaker.use()
        model, is_main = self.speaker.policy.model, self.speaker.policy.accelerator.is_main_process
        with maybe_gather_lm_head_ctx(*model.parameters()):
            if is_main:
                model.save_pretrained(versions.folder)
        if not is_main:
            return
        self._instance = self._client.instance()
        # Read by the time that the call returns
        self._client.reload_weights(versions.folder)
        versions.delete([versions.name, *versions.names_before()[:1]])

    def withdraw(self, from_server: bool):
        self._versions.delete([self._versions.name, *self._versions.names_before()[:1]])


class ServedBase:
    """
    A frozen agent whose weights are those that the server was started with.

    Args:
        speaker ([`Speaker`]): The agent.
        model (`str`): The name of the server's model.
    """

    def __init__(self, speaker: Speaker, model: str):
        self.speaker, self.model = speaker, model

    def publish(self):
        """Nothing to do: the server has them."""

    def withdraw(self, from_server: bool):
        """Nothing to do: they are the server's."""


def save_adapter(speaker: Speaker, folder: str):
    """Write the adapter of an agent, which appears in `folder` at once. All processes call this."""
    model: Any = speaker.policy.model
    speaker.use()
    # TRL's function gathers the shards of FSDP2, and this those of ZeRO-3, of any parameters
    with maybe_gather_lm_head_ctx(*(weight for name, weight in model.named_parameters() if "lora_" in name)):
        save_lora_adapter(model, speaker.policy.accelerator, "default", folder)


def save_null_adapter(pattern: Speaker, folder: str):
    """Write an adapter of the shape of `pattern`'s that adds nothing to its base. All processes call this."""
    save_adapter(pattern, folder)
    if pattern.policy.accelerator.is_main_process:
        file = os.path.join(folder, SAFETENSORS_WEIGHTS_NAME)
        zeros = {name: torch.zeros_like(tensor) for name, tensor in load_file(file).items()}
        save_file(zeros, file, metadata={"format": "pt"})
