"""The backend of a remote member: each of its messages is a request of its own, and each process sends its own rows."""

import random
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from accelerate import Accelerator

from ...agents.agent import Agent
from ...agents.settings import CONFIG_FIELDS, SamplingSettings
from ...conversation.turn_rendering import END, decode_turns, encode_text
from ..backend import Request, Written
from ..processes import union
from .endpoint import EndpointClient, RemoteMemberError


# What an endpoint draws its seeds from: JSON numbers that every language reads
_SEED_BITS = 31


class RemoteBackend:
    """
    Asks an endpoint for chat completions.

    Args:
        agent ([`Agent`]): The member.
        sampling ([`SamplingSettings`]): How it samples.
        accelerator ([`~accelerate.Accelerator`]): Of the processes that ask together: what fails on one is raised on all.
    """

    def __init__(self, agent: Agent, sampling: SamplingSettings, accelerator: Accelerator):
        self._agent, self._sampling, self._accelerator = agent, sampling, accelerator
        self._client = EndpointClient(agent)

    def check(self):
        """Raise [`RemoteMemberError`] unless the endpoint is there."""
        self._client.check()

    def generate(self, requests: list[Request]) -> list[Written]:
        """
        What the endpoint says to each of `requests`. All processes call this together.

        Raises:
            `RemoteMemberError`: On all processes, if one of them got no answer.
        """
        # From the state that a checkpoint keeps: a resumed run draws the seeds of an uninterrupted one
        drawn = [random.getrandbits(_SEED_BITS) for _ in requests]
        bodies = [self.make_body(request, seed) for request, seed in zip(requests, drawn, strict=True)]
        answers, failures = self._ask(bodies)
        failed = sorted(union(self._accelerator, set(failures)))
        if failed:
            raise RemoteMemberError(failed[0])
        return [answers[row] for row in range(len(requests))]

    def publish(self, agent: str):
        """Nothing to do: it has no weights here."""

    def rest(self):
        """Nothing to do: it holds nothing on the device."""

    def close(self):
        """Nothing to do: it holds nothing at the endpoint."""

    def make_body(self, request: Request, drawn: int) -> dict[str, Any]:
        """
        The body of a request to `/chat/completions`.

        Args:
            request ([`Request`]): The message.
            drawn (`int`): Its seed, if it has none of its own.
        """
        sampling, draw = self._sampling, request.draw
        temperature = sampling.temperature if draw is None or draw.temperature is None else draw.temperature
        seed = drawn if draw is None or draw.seed is None else draw.seed % 2**_SEED_BITS
        body: dict[str, Any] = {
            "model": self._agent.model,
            "messages": decode_turns(request.context),
            "temperature": temperature,
            "top_p": sampling.top_p,
            "max_tokens": None if request.max_tokens > sys.maxsize // 2 else request.max_tokens,
            "seed": seed,
            # Not fields of OpenAI's, but of most others'
            "top_k": sampling.top_k or None,
            "min_p": sampling.min_p or None,
            "repetition_penalty": None if sampling.repetition_penalty == 1.0 else sampling.repetition_penalty,
        }
        own = self._agent.generation_kwargs or {}
        body |= {name: value for name, value in own.items() if name not in (*CONFIG_FIELDS, "max_new_tokens")}
        return {name: value for name, value in body.items() if value is not None}

    def _ask(self, bodies: Sequence[dict[str, Any]]) -> tuple[dict[int, Written], list[str]]:
        """The answers, and why there are not all of them. After the first failure nothing more is asked for."""
        answers: dict[int, Written] = {}
        failures: list[str] = []
        failed = threading.Event()

        def ask(row: int):
            if failed.is_set():
                return
            try:
                answers[row] = self.read_answer(self._client.complete(bodies[row]))
            except RemoteMemberError as error:
                failures.append(str(error))
                failed.set()

        if bodies:
            with ThreadPoolExecutor(min(len(bodies), self._agent.endpoint_concurrency)) as pool:
                list(pool.map(ask, range(len(bodies))))
        return answers, failures

    def read_answer(self, answer: dict[str, Any]) -> Written:
        """
        The message in an answer: its bytes, and an end.

        Raises:
            `RemoteMemberError`: If it has none.
        """
        try:
            choice = answer["choices"][0]
            message = choice["message"]
            content = message.get("content")
            if isinstance(content, list):  # parts, of which some endpoints make a message
                content = "".join(part["text"] for part in content if part["type"] == "text")
            thought = message.get("reasoning_content") or message.get("reasoning") or ""
            used = (answer.get("usage") or {}).get("completion_tokens")
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise self._client.unreadable(str(answer)) from error
        text = content if content is not None else message.get("refusal") or ""
        if not isinstance(text, str) or not isinstance(thought, str):
            raise self._client.unreadable(str(answer))
        tokens = used if isinstance(used, int) else None
        return Written([*encode_text(text), END], None, thought, choice.get("finish_reason") == "length", tokens)
