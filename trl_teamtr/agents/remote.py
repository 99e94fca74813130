"""Members behind an endpoint of OpenAI's API: what can be said of them, and what needs a model here."""

import re
from typing import Any
from urllib.parse import urlsplit


# Where the key of an endpoint is looked for
API_KEY_ENV = "OPENAI_API_KEY"

# Fields of an agent that only one with an endpoint has
REMOTE_FIELDS = ("endpoint", "api_key_env", "endpoint_timeout", "endpoint_concurrency")

# Upper case: a key itself, which would be saved, hardly ever is
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")

# Fields that need a model here, each with what it is for
_LOCAL = {
    "peft_config": "trains an adapter",
    "processing_class": "is the tokenizer of a model here",
    "learning_rate": "is for training",
    "trust_region_radius": "is for training",
    "chat_template_kwargs": "is for a chat template, and the endpoint has its own",
    "thinking_end": "divides sampled tokens; a server that divides thoughts from answers sends them as `reasoning_content`",
    "vllm_server_base_url": "is for the weights of a model here",
}
# Of the body of a request, what the team decides
_OURS = ("model", "messages", "n", "stream", "stream_options", "tools", "tool_choice", "functions", "function_call")


def check_remote(agent: Any):
    """
    Check the fields of an [`Agent`] that concern an endpoint.

    Raises:
        `ValueError`: If the endpoint is no address, something needs a model here, or an agent without one has its fields. No
            message shows what may be a secret.
    """
    who = f"Agent {agent.name!r}"
    if agent.endpoint is None:
        defaults = {"api_key_env": API_KEY_ENV, "endpoint_timeout": 120.0, "endpoint_concurrency": 16}
        given = [name for name, default in defaults.items() if vars(agent)[name] != default]
        if given:
            raise ValueError(f"{who} has `{given[0]}`, which is for a member with an `endpoint`. Set both, or none.")
        return
    _check_address(who, agent.endpoint)
    if not isinstance(agent.model, str) or not agent.model:
        raise ValueError(
            f"{who} has an `endpoint`, so its `model` must be the name that the endpoint knows it by, got "
            f"{type(agent.model).__name__}."
        )
    if not isinstance(agent.api_key_env, str) or not _VARIABLE.fullmatch(agent.api_key_env):
        raise ValueError(
            f"{who}: `api_key_env` must be the name of an environment variable, such as {API_KEY_ENV!r}, in upper case. The key "
            "itself belongs into that variable, and nowhere else."
        )
    for name in ("endpoint_timeout", "endpoint_concurrency"):
        if not vars(agent)[name] > 0:
            raise ValueError(f"{who}: `{name}` must be positive, got {vars(agent)[name]}.")
    _refuse_local(who, agent)


def _check_address(who: str, endpoint: Any):
    parts = urlsplit(endpoint) if isinstance(endpoint, str) else None
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{who}: `endpoint` must be an address such as 'https://api.openai.com/v1'.")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError(
            f"{who}: `endpoint` must be an address alone, without a user, a password or a query, since it is saved and shown. The "
            f"key belongs into the environment variable that `api_key_env` names ({API_KEY_ENV} by default)."
        )
    if parts.path.rstrip("/").endswith("/completions"):
        raise ValueError(
            f"{who}: `endpoint` is the address before '/chat/completions', such as 'https://api.openai.com/v1', got {endpoint!r}."
        )


def _refuse_local(who: str, agent: Any):
    remote = f"{who} is remote (`endpoint`): its model is not here, and its log-probabilities are not known"
    if agent.trainable:
        raise ValueError(f"{remote}, so it cannot be trained. Leave `trainable` out, or load the model here.")
    for name, use in _LOCAL.items():
        if vars(agent)[name] is not None:
            raise ValueError(f"{remote}. `{name}` {use}. Leave it out.")
    if agent.thoughts != "private":
        raise ValueError(
            f"{remote}. `thoughts={agent.thoughts!r}` is not possible: what its server takes for a thought is not part of its "
            "message. Leave it out."
        )
    if not agent.keep_thoughts:
        raise ValueError(
            f"{remote}. `keep_thoughts=False` is for thoughts in its messages, which have none. Leave it out."
        )
    ours = [name for name in _OURS if name in (agent.generation_kwargs or {})]
    if ours:
        raise ValueError(
            f"{who}: `generation_kwargs` has `{ours[0]}`, which the team decides. It may have `temperature`, `top_p`, "
            "`max_completion_length` and other fields of the endpoint's requests; `None` leaves a field out."
        )
