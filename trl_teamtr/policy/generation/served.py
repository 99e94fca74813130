"""The weights of an agent on a server: an adapter, a whole model, or those that the server was started with."""

import math
import os
import shutil
from typing import Any, Protocol

from peft import PeftModel
from trl.experimental.async_grpo.async_grpo_trainer import save_lora_adapter, validate_lora_for_vllm_sync
from trl.trainer.utils import get_config_model_id

from ...agents.models import leaves_base_alone
from ..speaker import Speaker
from .client import ServerClient


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


class Versions:
    """
    Names of the versions of an agent's weights, each also that of a folder: a server would go on serving the prefixes that it
    has cached under a name that it has seen.

    Args:
        root (`str`): The folder of all versions, which the server sees under the same path.
        run (`str`): A name of this run that no other run has.
        agent (`str`): Name of the agent.
    """

    def __init__(self, root: str, run: str, agent: str):
        self._root, self._stem = root, f"{run}-{agent}"
        self._number = 0

    @property
    def name(self) -> str:
        """That of the present version."""
        return f"{self._stem}-v{self._number}"

    @property
    def folder(self) -> str:
        """That of the present version."""
        return os.path.join(self._root, self.name)

    def advance(self):
        """Begin a new version."""
        self._number += 1

    def names_before(self) -> list[str]:
        """Those of the versions before the present one, the last one first."""
        return [f"{self._stem}-v{number}" for number in range(self._number - 1, 0, -1)]

    def delete(self, names: list[str]):
        """Delete the folders of some versions, and their common folder if it is then empty."""
        for name in names:
            # What a failed attempt has not finished has TRL's name for it
            for folder in (name, f".{name}.tmp"):
                shutil.rmtree(os.path.join(self._root, folder), ignore_errors=True)
        if os.path.isdir(self._root) and not os.listdir(self._root):
            os.rmdir(self._root)


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
        model: Any = self.speaker.policy.model
        self.speaker.use()
        if accelerator.is_main_process:
            os.makedirs(os.path.dirname(versions.folder), exist_ok=True)
        save_lora_adapter(model, accelerator, "default", versions.folder)
        if not accelerator.is_main_process:
            return
        self._loaded.append(versions.name)
        self._client.load_lora_adapter(versions.name, versions.folder, math.ceil(self._client.server_timeout))
        self._unload(self._loaded[:-1])
        self._loaded = self._loaded[-1:]
        # Not the folder of the last version: an engine that has not yet forgotten it may read it again
        versions.delete(versions.names_before()[1:3])

    def withdraw(self, from_server: bool):
        if from_server:
            self._unload(self._loaded)
        self._loaded = []
        self._versions.delete([self._versions.name, *self._versions.names_before()])

    def _unload(self, names: list[str]):
        for name in names:
            self._client.unload_lora_adapter(name, math.ceil(self._client.server_timeout))


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

    def publish(self):
        versions = self._versions
        versions.advance()
        self.speaker.use()
        if not self.speaker.policy.accelerator.is_main_process:
            return
        self.speaker.policy.model.save_pretrained(versions.folder)
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


def is_adapter(speaker: Speaker) -> bool:
    """Whether an agent's own weights are an adapter."""
    return isinstance(speaker.policy.model, PeftModel)


def base_of(speaker: Speaker) -> str:
    """The path or id of an agent's model, or of the base of its adapter; empty for one that was loaded from nowhere."""
    model: Any = speaker.policy.model
    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    return get_config_model_id(base.config) or ""


def rank_of(speaker: Speaker) -> int:
    """
    The rank of an agent's adapter.

    Raises:
        `ValueError`: If a server cannot serve it as it is, on the base as it is.
    """
    model: Any = speaker.policy.model
    try:
        config = validate_lora_for_vllm_sync(model)
    except ValueError as error:
        raise ValueError(
            f"Agent {speaker.name!r} has an adapter that vLLM cannot serve: {error} (An adapter is never merged here: train plain "
            "LoRA, or leave `use_vllm=False`.)"
        ) from error
    own = {name: getattr(config, name) for name in ("rank_pattern", "alpha_pattern") if getattr(config, name)}
    if own:
        raise ValueError(
            f"Agent {speaker.name!r} has an adapter with {', '.join(own)}, but vLLM scales all modules of an adapter alike. "
            "Give all modules one `r` and one `lora_alpha`, or leave `use_vllm=False`."
        )
    if not leaves_base_alone(config):
        raise ValueError(
            f"Agent {speaker.name!r} has an adapter with init_lora_weights={config.init_lora_weights!r}, which rewrites its base: "
            "the server's base is another. Use `True`, `False`, 'gaussian' or 'orthogonal', or leave `use_vllm=False`."
        )
    return config.r
