"""What a team asks of a vLLM server."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import requests
from trl.experimental.async_grpo.vllm_client import VLLMClient


@dataclass(frozen=True)
class Failure:
    """
    Why a server did not do what was asked.

    Args:
        url (`str`): The server.
        message (`str`): What it said.
        lost (`bool`): Whether it is not there, or without what was published to it: then it may be asked again once it is
            there, and everything published anew.
    """

    url: str
    message: str
    lost: bool


class ServerClient(VLLMClient):
    """
    TRL's client, with the calls that it leaves to others: completions, and the weights of a whole model by path.

    Attributes:
        poll_interval (`float`): Seconds from one look at a server that is not ready to the next.
    """

    poll_interval = 2.0

    def complete(self, payload: dict[str, Any]) -> dict[str, Any]:
        """
        The answer to a request to `/v1/completions`.

        Raises:
            `requests.RequestException`: If there is none within `server_timeout` seconds, or it is an error; an
                `HTTPError` has what the server said.
        """
        return self._post("/v1/completions", payload).json()

    def reload_weights(self, folder: str):
        """Replace the weights of the served model by those in `folder`, which the server reads, and forget its caches."""
        self._post("/collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": folder}})
        self._post("/reset_prefix_cache")

    def served_name(self) -> str:
        """The name under which the server serves its model itself, without an adapter."""
        response = requests.get(f"{self.server_url}/v1/models", timeout=self.server_timeout)
        response.raise_for_status()
        return response.json()["data"][0]["id"]

    def instance(self) -> str:
        """What the server calls itself until it is started again."""
        return self.get_server_info()["instance_id"]

    def takes_adapters(self) -> bool:
        """Whether adapters can be loaded while the server runs."""
        # A path that takes another method is answered with 405, one that does not exist with 404
        response = requests.get(f"{self.server_url}/v1/load_lora_adapter", timeout=self.server_timeout)
        return response.status_code != 404

    def is_healthy(self) -> bool:
        """Whether the server and its engine are up."""
        try:
            return requests.get(f"{self.server_url}/health", timeout=10).status_code == 200
        except (requests.ConnectionError, requests.Timeout):
            return False

    def attempt(self, call: Callable[[], Any], what: str) -> Failure | None:
        """Call `call`, which asks this server for `what`. Returns why that failed, if it did, for all processes to know."""
        try:
            call()
        except requests.HTTPError as error:
            missing = error.response is not None and error.response.status_code == 404
            return self._failure(error, what, lost=missing or not self.is_healthy())
        except requests.RequestException as error:
            return self._failure(error, what, lost=True)
        except Exception as error:  # TRL raises no narrower one; it is raised again, by all processes
            return self._failure(error, what, lost=not self.is_healthy())
        return None

    def _failure(self, error: Exception, what: str, lost: bool) -> Failure:
        return Failure(self.server_url, f"{what}: {type(error).__name__}: {error}", lost)

    def _post(self, path: str, payload: dict[str, Any] | None = None) -> requests.Response:
        response = requests.post(f"{self.server_url}{path}", json=payload, timeout=(10, self.server_timeout))
        if response.status_code != 200:
            raise requests.HTTPError(f"{path}: {response.status_code}: {response.text}", response=response)
        return response
