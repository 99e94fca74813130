"""The backend of a team on vLLM servers: which agent speaks through which, and what happens when one is lost."""

import functools
import random
import uuid
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from accelerate.utils import broadcast_object_list

from ...agents.settings import SamplingSettings
from ...teamtr_config import TeamTRConfig
from ..backend import Request, Written
from ..processes import union
from ..speaker import Speaker
from .canary import check_published
from .client import Failure, ServerClient
from .completions import check_sampling, make_payload, read_answer, refuse_own_draws
from .engine_settings import find_sync_dir
from .servable import is_adapter
from .served import Served, ServedAdapter, ServedBase, ServedNull, ServedWeights
from .server_checks import check_agents, check_server
from .versions import Versions


# Requests of a process at a time; a server queues what it cannot batch
CONCURRENCY = 256


@dataclass(frozen=True)
class FleetSettings:
    """
    How a team uses its servers. The fields of [`TeamTRConfig`].

    Args:
        url (`str`): The server of agents that name none.
        timeout (`float`): Seconds to wait for a server to be up, and for an answer.
        sync_dir (`str`): Where weights are written, under a path that the servers see too.
        max_logp_difference (`float`, *optional*): Largest difference of the log-probabilities of a server and of the policy here,
            in nats per token. `None` for no check.
    """

    url: str
    timeout: float
    sync_dir: str
    max_logp_difference: float | None

    @classmethod
    def of(cls, args: TeamTRConfig) -> "FleetSettings":
        """The settings of `args`."""
        url = args.vllm_server_base_url or f"http://{args.vllm_server_host}:{args.vllm_server_port}"
        return cls(url, args.vllm_server_timeout, find_sync_dir(args), args.vllm_max_logp_difference)


class ServerLostError(ConnectionError):
    """A server is not there, or without the weights that were published to it."""

    def __init__(self, failures: Sequence[Failure]):
        self.urls = {failure.url for failure in failures}
        told = "\n".join(f"vLLM server at {failure.url}: {failure.message}" for failure in failures)
        super().__init__(f"{told}\nIf a server only answers late, raise `vllm_server_timeout`.")


class Fleet:
    """
    The backend that all agents of a team share: each speaks through a vLLM server. All rows of a turn are sent at once, each
    as a request of its own, and each process sends its own rows.

    Weights are published before an agent next speaks, if they have changed. A server that is lost in a turn is waited for,
    gets all its agents anew, and the turn is repeated, once.

    Args:
        speakers (`Sequence[Speaker]`): The agents. Of those with an adapter, the server has the base; of those that train all
            their weights, each has a server.
        settings ([`FleetSettings`]): How they use their servers.

    Raises:
        `ConnectionError`: If a server is not up.
        `ValueError`: If a server was not started as the agents need it, or an agent cannot speak through a server.
    """

    def __init__(self, speakers: Sequence[Speaker], settings: FleetSettings):
        self._settings, self._accelerator = settings, speakers[0].policy.accelerator
        self._unpublished = {speaker.name for speaker in speakers}
        by_url: dict[str, list[Speaker]] = {}
        for speaker in speakers:
            check_sampling(speaker.name, speaker.sampling)
            url = (speaker.agent.vllm_server_base_url or settings.url).rstrip("/")
            by_url.setdefault(url, []).append(speaker)
        self._urls = {speaker.name: url for url, group in by_url.items() for speaker in group}
        self._clients = {url: ServerClient(url, settings.timeout) for url in by_url}
        for url, group in by_url.items():
            check_agents(group, url)
            check_server(self._clients[url], group)
        run = broadcast_object_list([uuid.uuid4().hex[:8]])[0]
        self._served = {speaker.name: self._serve(speaker, run, speakers) for speaker in speakers}

    def _serve(self, speaker: Speaker, run: str, speakers: Sequence[Speaker]) -> Served:
        client = self._clients[self._urls[speaker.name]]
        versions = Versions(self._settings.sync_dir, run, speaker.name)
        if is_adapter(speaker):
            return ServedAdapter(speaker, client, versions)
        neighbours = [other for other in speakers if self._urls[other.name] == client.server_url and is_adapter(other)]
        if neighbours:
            return ServedNull(speaker, client, versions, neighbours[0])
        name = client.served_name()
        return ServedWeights(speaker, client, versions, name) if speaker.agent.trainable else ServedBase(speaker, name)

    def generate(self, requests: list[Request]) -> list[Written]:
        refuse_own_draws(requests)
        # From the state that a checkpoint keeps: a resumed run draws the seeds of an uninterrupted one
        seeds = [random.getrandbits(63) for _ in requests]
        names = union(self._accelerator, {request.agent for request in requests})
        try:
            return self._take_turn(sorted(names), requests, seeds)
        except ServerLostError as lost:
            warnings.warn(f"The turn is repeated once the server is up again. {lost}", stacklevel=2)
            self._recover(lost.urls)
            return self._take_turn(sorted(names), requests, seeds)

    def publish(self, agent: str):
        """The weights of `agent` have changed: they are published before it next speaks."""
        self._unpublished.add(agent)

    def rest(self):
        """Nothing to do: the servers have memory of their own."""

    def close(self):
        """Unload this run's adapters, and delete their folders. They are published anew if an agent speaks again."""
        if self._accelerator.is_main_process:
            healthy = {url for url, client in self._clients.items() if client.is_healthy()}
            for name, served in self._served.items():
                served.withdraw(self._urls[name] in healthy)
        self._unpublished |= set(self._served)

    def _take_turn(self, names: list[str], requests: list[Request], seeds: list[int]) -> list[Written]:
        for name in names:
            if name in self._unpublished or self._is_forgotten(name):
                self._publish(name, requests)
        return self._ask(requests, seeds)

    def _publish(self, name: str, requests: list[Request]):
        served = self._served[name]
        place = f"`vllm_sync_dir` is {self._settings.sync_dir!r}, which the server must see under this path"
        failure = self._client_of(name).attempt(served.publish, f"agent {name!r} could not be published ({place})")
        self._agree([failure])
        self._accelerator.wait_for_everyone()
        if self._settings.max_logp_difference is not None:
            where, mend = f"the vLLM server at {self._urls[name]}", "Start it with the same model and `--dtype`"
            check_published(served.speaker, requests, self._ask, self._settings.max_logp_difference, where, mend)
        self._unpublished.discard(name)

    def _is_forgotten(self, name: str) -> bool:
        """Whether the server of an agent was started again, and serves other weights under the same name."""
        served, found = self._served[name], set[str]()
        if not isinstance(served, ServedWeights):
            return False  # a server that was started again does not know the name of an adapter

        def look():
            if self._accelerator.is_main_process and served.is_forgotten():
                found.add(name)

        self._agree([self._client_of(name).attempt(look, f"the server of agent {name!r} does not tell what it is")])
        return bool(union(self._accelerator, found))

    def _ask(
        self, requests: list[Request], seeds: list[int], sampling: SamplingSettings | None = None
    ) -> list[Written]:
        """The answers to `requests`, all sent at once, sampled as their agents do or by `sampling`."""
        answers: dict[int, Written] = {}

        def ask(row: int) -> Failure | None:
            request = requests[row]
            served, client = self._served[request.agent], self._client_of(request.agent)
            own, ends = sampling or served.speaker.sampling, served.speaker.eos_token_ids

            def call():
                payload = make_payload(served.model, request, own, ends, seeds[row])
                answers[row] = read_answer(client.complete(payload), request, own, ends)

            return client.attempt(call, f"agent {request.agent!r} got no message")

        with ThreadPoolExecutor(min(len(requests), CONCURRENCY) or 1) as pool:
            self._agree(list(pool.map(ask, range(len(requests)))))
        return [answers[row] for row in range(len(requests))]

    def _agree(self, failures: Sequence[Failure | None]):
        """Raise on all processes what has failed on any: `ServerLostError` if it may be repeated, else `RuntimeError`."""
        # One for each server, and first of all one that no repetition mends
        own = {(failure.url, failure.lost): failure for failure in failures if failure is not None}
        found = {(each.url, each.lost): each for each in union(self._accelerator, set(own.values()))}
        final = [failure for failure in found.values() if not failure.lost]
        if final:
            raise RuntimeError(f"The vLLM server at {final[0].url} refused a request: {final[0].message}")
        if found:
            raise ServerLostError(sorted(found.values(), key=lambda failure: failure.url))

    def _recover(self, urls: set[str]):
        """Wait until the servers at `urls` are up; all their agents are to be published anew."""
        for url in sorted(urls):
            speakers = [served.speaker for name, served in self._served.items() if self._urls[name] == url]

            check = functools.partial(check_server, self._clients[url], speakers)  # waits for it first
            self._agree([self._clients[url].attempt(check, "it has not come back as it was")])
            self._unpublished |= {speaker.name for speaker in speakers}

    def _client_of(self, name: str) -> ServerClient:
        return self._clients[self._urls[name]]
