"""What is asked of an endpoint: retries, time-outs, and errors that say what was asked, of whom, and what to do."""

import os
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from urllib3.util import Retry

from ...agents.agent import Agent


# What passes: time-outs, too many requests, and faults of a server or of what stands before it
_PASSING = (408, 425, 429, 500, 502, 503, 504, 529)
# Seconds to wait for a connection, and at most between two attempts
_CONNECT, _PATIENCE = 10.0, 60
# Characters of an answer that are shown
_SHOWN = 500


class RemoteMemberError(RuntimeError):
    """A remote member has not answered, or not as it should have."""


class _Key(AuthBase):
    """Sends the key of an endpoint, which is read from the environment each time and kept nowhere."""

    def __init__(self, client: "EndpointClient"):
        self._client = client

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        key = self._client.read_key()
        if key:
            request.headers["Authorization"] = f"Bearer {key}"
        return request


class EndpointClient:
    """
    The API of an endpoint, for one agent.

    Args:
        agent ([`Agent`]): A remote member.

    Attributes:
        attempts (`int`): How often something is asked again that may pass.
        backoff (`float`): Seconds before the second attempt, doubled before each further one.
    """

    attempts = 6
    backoff = 1.0

    def __init__(self, agent: Agent):
        self._agent, self._url = agent, str(agent.endpoint).rstrip("/")
        retry = Retry(
            self.attempts,
            allowed_methods=None,  # a completion may be asked for again: nobody has heard the first one
            status_forcelist=_PASSING,
            backoff_factor=self.backoff,
            backoff_jitter=self.backoff,
            backoff_max=_PATIENCE,
            retry_after_max=_PATIENCE,
            raise_on_status=False,
        )
        self._session = requests.Session()
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(pool_maxsize=agent.endpoint_concurrency, max_retries=retry))

    def read_key(self) -> str:
        """
        The key, empty if there is none.

        Raises:
            `RemoteMemberError`: If it cannot be sent. It is not shown.
        """
        key = os.environ.get(self._agent.api_key_env, "").strip()
        if not (key.isascii() and key.isprintable()) and key:
            raise RemoteMemberError(
                f"The environment variable {self._agent.api_key_env}, with the key of agent {self._agent.name!r}, has characters "
                "that no key has. Set it to the key alone."
            )
        return key

    def check(self):
        """
        Raise `RemoteMemberError` unless the endpoint is there and takes the key. Its list of models is asked for, which costs
        nothing; an endpoint without one, or a key that may not read it, is taken as it is.
        """
        response = self._send("GET", "/models", None)
        if response.status_code not in (200, 403, 404, 405, 501):
            raise self._refused("its list of models", response)

    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        """
        The answer to a request to `/chat/completions`.

        Raises:
            `RemoteMemberError`: If there is none, or it is an error.
        """
        response = self._send("POST", "/chat/completions", body)
        if response.status_code != 200:
            raise self._refused("a message", response)
        try:
            answer = response.json()
        except requests.JSONDecodeError as error:
            raise self.unreadable(response.text) from error
        if not isinstance(answer, dict):
            raise self.unreadable(response.text)
        return answer

    def unreadable(self, text: str) -> RemoteMemberError:
        """The error for an answer that is no chat completion."""
        return RemoteMemberError(
            f"{self._who} has answered with what is no chat completion: {self._show(text)}. Is `endpoint` the address of an "
            "OpenAI-compatible API, such as 'https://api.openai.com/v1'?"
        )

    @property
    def _who(self) -> str:
        return f"The endpoint {self._url} of agent {self._agent.name!r} ({self._agent.model})"

    def _send(self, method: str, path: str, body: dict[str, Any] | None) -> requests.Response:
        try:
            return self._session.request(
                method,
                f"{self._url}{path}",
                json=body,
                auth=_Key(self),
                timeout=(_CONNECT, self._agent.endpoint_timeout),
                allow_redirects=False,  # what the team says goes where it was told to
            )
        except requests.RequestException as error:
            raise RemoteMemberError(
                f"{self._who} cannot be reached, or has not answered within {self._agent.endpoint_timeout:g} seconds "
                f"(`endpoint_timeout`), {self.attempts + 1} times: {self._show(str(error))}. Is it up, and the address right? A "
                "training is saved as it was before, and can be resumed once it is."
            ) from None  # its cause has the request with it

    def _refused(self, what: str, response: requests.Response) -> RemoteMemberError:
        status, variable = response.status_code, self._agent.api_key_env
        mend = "Mend what it says"
        if status in (401, 403):
            given = "the key that is there was not taken" if self.read_key() else "it is not set"
            mend = f"Its key is read from the environment variable {variable}: {given}"
        elif status == 404:
            mend = "Is the name of the model right, and the address that before '/chat/completions'?"
        elif status in _PASSING:
            mend = f"It was asked {self.attempts + 1} times. A lower `endpoint_concurrency` asks it for less at a time"
        elif 300 <= status < 400:
            mend = "It points elsewhere, where nothing is sent: give the right address as `endpoint`"
        elif status in (400, 422):
            mend = "`generation_kwargs={...: None}` of the agent leaves out a field that the endpoint does not know"
        return RemoteMemberError(
            f"{self._who} was asked for {what} and answered with status {status}: {self._show(response.text)}. {mend.rstrip('?.')}"
            f"{'?' if mend.endswith('?') else '.'} A training is saved as it was before, and can be resumed."
        )

    def _show(self, text: str) -> str:
        """Text from elsewhere, in which the key is masked, cut if it is long."""
        key = self.read_key()
        text = text.replace(key, f"<{self._agent.api_key_env}>") if key else text
        return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} ..."
