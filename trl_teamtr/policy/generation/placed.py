"""The weights of an agent on an engine in this process: an adapter, a whole model, or those that the engine began with."""

import os
from typing import Any, Protocol

from transformers.core_model_loading import revert_weight_conversion
from trl.trainer.utils import maybe_gather_lm_head_ctx

from ..speaker import Speaker
from .engine import Engine
from .served import save_adapter, save_null_adapter
from .versions import Versions


class Placed(Protocol):
    """
    The weights of an agent on an engine.

    Attributes:
        speaker ([`Speaker`]): The agent.
        engine ([`Engine`]): The engine, of each process its own.
    """

    speaker: Speaker
    engine: Engine

    @property
    def adapter(self) -> str | None:
        """The name by which the engine knows these weights; `None` for those of its model."""
        ...

    def publish(self):
        """Give the engines of all processes the present weights. All processes call this together."""
        ...

    def withdraw(self):
        """Delete what was written, and what the engine of this process holds beside its model."""
        ...


class PlacedAdapter:
    """
    A LoRA adapter on the engine of its base. The engine holds one version of it; it is never merged.

    Args:
        speaker ([`Speaker`]): The agent, whose model is a [`~peft.PeftModel`].
        engine ([`Engine`]): The engine.
        versions ([`Versions`]): Of the agent; the folder is one that all processes see.
    """

    def __init__(self, speaker: Speaker, engine: Engine, versions: Versions):
        self.speaker, self.engine, self._versions = speaker, engine, versions
        self.adapter: str | None = None

    def publish(self):
        versions, accelerator = self._versions, self.speaker.policy.accelerator
        versions.advance()
        if accelerator.is_main_process:
            os.makedirs(os.path.dirname(versions.folder), exist_ok=True)
        self._save(versions.folder)
        accelerator.wait_for_everyone()
        self._unload()
        self.engine.load_adapter(versions.name, versions.folder)
        self.adapter = versions.name
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            versions.delete(versions.names_before()[:1])

    def _save(self, folder: str):
        """Write the version to load. All processes call this."""
        save_adapter(self.speaker, folder)

    def withdraw(self):
        self._unload()
        if self.speaker.policy.accelerator.is_main_process:
            self._versions.delete([self._versions.name, *self._versions.names_before()])

    def _unload(self):
        # An engine that sleeps forgets it when it wakes
        if self.adapter is not None and self.engine.knows(self.adapter) and not self.engine.is_asleep:
            self.engine.unload_adapter(self.adapter)
        self.adapter = None


class PlacedNull(PlacedAdapter):
    """
    A frozen agent with the weights of the engine's model, asked for by an adapter that adds nothing to them, as on a server:
    on a CPU, vLLM computes a row without an adapter with the adapter of another row of its batch (vllm#48421).

    Args:
        speaker ([`Speaker`]): The agent.
        engine ([`Engine`]): The engine.
        versions ([`Versions`]): Of the agent.
        pattern ([`Speaker`]): An agent with an adapter on the same engine.
    """

    def __init__(self, speaker: Speaker, engine: Engine, versions: Versions, pattern: Speaker):
        super().__init__(speaker, engine, versions)
        self._pattern = pattern

    def _save(self, folder: str):
        save_null_adapter(self._pattern, folder)


class PlacedWeights:
    """
    All weights of an agent, on an engine of its own. They are handed over in memory.

    Args:
        speaker ([`Speaker`]): The agent.
        engine ([`Engine`]): The engine.
    """

    adapter = None

    def __init__(self, speaker: Speaker, engine: Engine):
        self.speaker, self.engine = speaker, engine

    def publish(self):
        self.speaker.use()
        model: Any = self.speaker.policy.model
        with maybe_gather_lm_head_ctx(*model.parameters()):
            weights = {name: weight.detach() for name, weight in model.named_parameters()}
            # By the names of a checkpoint, which vLLM reads: those of transformers may be others, and experts are fused there
            self.engine.reload_weights(revert_weight_conversion(model, weights).items())

    def withdraw(self):
        """Nothing to do: nothing was written, and the model stays."""


class PlacedBase:
    """
    A frozen agent whose weights are those that the engine began with.

    Args:
        speaker ([`Speaker`]): The agent.
        engine ([`Engine`]): The engine.
    """

    adapter = None

    def __init__(self, speaker: Speaker, engine: Engine):
        self.speaker, self.engine = speaker, engine

    def publish(self):
        """Nothing to do: the engine has them."""

    def withdraw(self):
        """Nothing to do: the model stays."""
