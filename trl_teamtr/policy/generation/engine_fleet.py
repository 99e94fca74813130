"""The backend of a team on vLLM engines in its own process: which agent speaks through which, and when they sleep."""

import random
import uuid
from collections.abc import Sequence

from accelerate.utils import broadcast_object_list

from ...agents.settings import SamplingSettings
from ..backend import Request, Written
from ..processes import union
from ..speaker import Speaker
from .canary import check_published
from .completions import check_sampling, read_message, refuse_own_draws, sampling_fields
from .engine import Engine
from .engine_checks import check_engines, engine_arguments, share_engines
from .engine_settings import EngineSettings
from .placed import Placed, PlacedAdapter, PlacedBase, PlacedNull, PlacedWeights
from .servable import is_adapter
from .versions import Versions


class EngineFleet:
    """
    The backend that all agents of a team share: each speaks through a vLLM engine in this process. All rows of a turn that have
    one engine are sampled together, and each process samples its own rows.

    Weights are published before an agent next speaks, if they have changed or its engine has slept.

    Args:
        speakers (`Sequence[Speaker]`): The agents. Adapters on one base share an engine; an agent that trains all its weights has
            one of its own.
        settings ([`EngineSettings`]): How they use them.

    Raises:
        `ImportError`: If vLLM is not installed, or in an unknown version.
        `ValueError`: If an agent cannot speak through an engine, or they would take more memory than there is.
    """

    def __init__(self, speakers: Sequence[Speaker], settings: EngineSettings):
        self._settings, self._accelerator = settings, speakers[0].policy.accelerator
        self._unpublished = {speaker.name for speaker in speakers}
        for speaker in speakers:
            check_sampling(speaker.name, speaker.sampling)
        groups = share_engines(speakers)
        check_engines(groups, settings)
        arguments = [engine_arguments(group, settings) for group in groups]
        (run,) = broadcast_object_list([uuid.uuid4().hex[:8]])
        self._engines: list[Engine] = []
        self._placed: dict[str, Placed] = {}
        for group, own in zip(groups, arguments, strict=True):
            engine = Engine(own, self._accelerator)
            self._engines.append(engine)
            self._placed |= {speaker.name: self._place(speaker, engine, group, run) for speaker in group}
            if settings.sleeps:
                engine.sleep()  # the next one is made beside it
        self._accelerator.wait_for_everyone()

    def _place(self, speaker: Speaker, engine: Engine, group: Sequence[Speaker], run: str) -> Placed:
        versions = Versions(self._settings.sync_dir, run, speaker.name)
        if is_adapter(speaker):
            return PlacedAdapter(speaker, engine, versions)
        neighbours = [other for other in group if is_adapter(other)]
        if neighbours:
            return PlacedNull(speaker, engine, versions, neighbours[0])
        return PlacedWeights(speaker, engine) if speaker.agent.trainable else PlacedBase(speaker, engine)

    def generate(self, requests: list[Request]) -> list[Written]:
        refuse_own_draws(requests)
        # From the state that a checkpoint keeps: a resumed run draws the seeds of an uninterrupted one
        seeds = [random.getrandbits(63) for _ in requests]
        for name in sorted(union(self._accelerator, {request.agent for request in requests})):
            self._wake(self._placed[name].engine)
            if name in self._unpublished:
                self._publish(name, requests)
        return self._ask(requests, seeds)

    def publish(self, agent: str):
        """The weights of `agent` have changed: they are published before it next speaks."""
        self._unpublished.add(agent)

    def rest(self):
        """Let the engines sleep until an agent next speaks, if the settings say so."""
        for engine in self._engines if self._settings.sleeps else []:
            if not engine.is_asleep:
                engine.sleep()

    def close(self):
        """Unload the adapters, and delete their folders. They are published anew if an agent speaks again."""
        for placed in self._placed.values():
            placed.withdraw()
        self._unpublished |= set(self._placed)
        self.rest()

    def _wake(self, engine: Engine):
        if engine.is_asleep:
            engine.wake()
            # Not only adapters: what has slept is checked before it speaks
            self._unpublished |= {name for name, placed in self._placed.items() if placed.engine is engine}

    def _publish(self, name: str, requests: list[Request]):
        placed = self._placed[name]
        placed.publish()
        if self._settings.max_logp_difference is not None:
            where, mend = "its vLLM engine", "Check that `speaking_precision` and `vllm_model_impl` fit the model"
            check_published(placed.speaker, requests, self._ask, self._settings.max_logp_difference, where, mend)
        self._unpublished.discard(name)

    def _ask(
        self, requests: list[Request], seeds: list[int], sampling: SamplingSettings | None = None
    ) -> list[Written]:
        """The answers to `requests`, all rows of an engine together, sampled as their agents do or by `sampling`."""
        answers: dict[int, Written] = {}
        for engine in self._engines:
            rows = [row for row, request in enumerate(requests) if self._placed[request.agent].engine is engine]
            placed = [self._placed[requests[row].agent] for row in rows]
            fields = [
                sampling_fields(requests[row], sampling or own.speaker.sampling, own.speaker.eos_token_ids, seeds[row])
                for row, own in zip(rows, placed, strict=True)
            ]
            contexts, adapters = [requests[row].context for row in rows], [own.adapter for own in placed]
            found = engine.generate(contexts, fields, adapters)
            for row, own, sampled in zip(rows, placed, found, strict=True):
                speaker = own.speaker
                answers[row] = read_message(
                    sampled.ids,
                    sampled.logps,
                    requests[row],
                    sampling or speaker.sampling,
                    speaker.eos_token_ids,
                    sampled.finish_reason,
                )
        return [answers[row] for row in range(len(requests))]
