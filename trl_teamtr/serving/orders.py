"""What a request asks for: OpenAI's fields, each honoured or refused by name."""

import random
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..rollouts.talks import Wishes
from .errors import wrong


# Fields of OpenAI's that are refused unless they ask for nothing, with what asks for nothing, and what stands in the way
_NOTHING: dict[str, tuple[tuple[Any, ...], str]] = {
    "stop": ((None, [], ""), "a message ends with its agent's end-of-turn token"),
    "tools": ((None, []), "agents have no tools yet"),
    "tool_choice": ((None, "none", "auto"), "agents have no tools yet"),
    "parallel_tool_calls": ((None, True, False), "agents have no tools yet"),
    "functions": ((None, []), "agents have no tools yet"),
    "function_call": ((None, "none", "auto"), "agents have no tools yet"),
    "reasoning_effort": ((None, "none"), "thoughts of agents cannot be set yet"),
    "response_format": ((None, {"type": "text"}), "agents answer with text"),
    "modalities": ((None, ["text"]), "agents answer with text"),
    "audio": ((None,), "agents answer with text"),
    "logprobs": ((None, False), "log-probabilities are those of several agents"),
    "top_logprobs": ((None, 0), "log-probabilities are those of several agents"),
    "logit_bias": ((None, {}), "ids differ between agents"),
    "top_p": ((None, 1, 1.0), "agents sample with the settings that they were trained with; `temperature` can be set"),
    "presence_penalty": ((None, 0, 0.0), "agents sample with the settings that they were trained with"),
    "frequency_penalty": ((None, 0, 0.0), "agents sample with the settings that they were trained with"),
    "store": ((None, False), "nothing is kept here"),
    "service_tier": ((None, "auto", "default"), "there is one"),
    "prediction": ((None,), "it is not supported"),
    "web_search_options": ((None,), "it is not supported"),
}
# Those that change nothing here
_IGNORED = {"user", "metadata", "safety_identifier", "prompt_cache_key"}

_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


class StreamOptions(BaseModel):
    """Options of a streamed answer."""

    model_config = ConfigDict(extra="ignore")
    include_usage: bool = False


class TeamOptions(BaseModel):
    """What only a team has: `agent_prompts`, texts that only the named agents read."""

    model_config = ConfigDict(extra="forbid")
    agent_prompts: dict[str, str] | None = None


class Order(BaseModel):
    """
    A request to `/v1/chat/completions`.

    Args:
        model (`str`): The team, or one of its members.
        messages (`list[dict]`): The turns, of which the last is the user's.
        n (`int`): Number of answers.
        seed (`int`, *optional*): The same one gives the same answers. A random one if not given.
        temperature (`float`, *optional*): In place of the agents' own; 0 for the most probable id at each place.
        max_tokens, max_completion_tokens (`int`, *optional*): Maximum number of tokens of each message of an agent.
        stream (`bool`), stream_options: Whether the answer comes in pieces.
        teamtr ([`TeamOptions`]): What only a team has.
    """

    model_config = ConfigDict(extra="allow", strict=True)
    model: str
    messages: list[dict[str, Any]] = Field(min_length=1)
    n: int = Field(1, ge=1)
    seed: int | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    stream: bool = False
    stream_options: StreamOptions | None = None
    teamtr: TeamOptions = TeamOptions()

    @property
    def turns(self) -> list[dict[str, str]]:
        """The messages as turns of a prompt."""
        return [_read_turn(message, number) for number, message in enumerate(self.messages)]

    def wishes(self) -> list[Wishes]:
        """How the conversations are drawn, one for each answer; the first is that of the seed itself."""
        seed = random.getrandbits(31) if self.seed is None else self.seed
        given = [limit for limit in (self.max_tokens, self.max_completion_tokens) if limit is not None]
        seeds = [seed] + [random.Random(f"{seed}/choice/{i}").getrandbits(63) for i in range(1, self.n)]
        return [Wishes(each, self.temperature, min(given, default=None)) for each in seeds]


def read_order(body: dict[str, Any], max_choices: int) -> Order:
    """
    The order of a request.

    Args:
        body (`dict`): Its body.
        max_choices (`int`): Largest number of answers.

    Raises:
        `APIError`: If a field is missing, of the wrong type, out of range, unknown, or not supported.
    """
    given = {name: value for name, value in body.items() if value is not None}  # OpenAI's null is not given
    try:
        order = Order.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise wrong(f"`{place}`: {first['msg']}. Got {str(first['input'])[:100]!r}.", place) from error
    for name, value in (order.model_extra or {}).items():
        nothing, reason = _NOTHING.get(name, ((), ""))
        if name in _IGNORED or any(type(value) is type(other) and value == other for other in nothing):
            continue
        if name in _NOTHING:
            message = f"`{name}` is not supported: {reason}. Leave it out."
            raise wrong(message, name, "unsupported_parameter")
        raise wrong(f"Unrecognized request argument: `{name}`. Leave it out.", name, "unknown_parameter")
    if order.n > max_choices:
        raise wrong(f"`n` is {order.n}, and this server gives at most {max_choices} answers to a request.", "n")
    if order.stream_options is not None and not order.stream:
        raise wrong("`stream_options` is for `stream=true` only. Leave it out.", "stream_options")
    turns = order.turns
    if turns[-1]["role"] != "user":
        raise wrong(f"The last message is the {turns[-1]['role']}'s, but must be the user's.", "messages")
    return order


def _read_turn(message: dict[str, Any], number: int) -> dict[str, str]:
    place = f"messages.{number}"
    role = message.get("role")
    if role not in _ROLES:
        raise wrong(f"`{place}.role` is {role!r}, but must be one of {', '.join(_ROLES)}.", f"{place}.role")
    content = message.get("content")
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if not isinstance(parts, list) or not all(_is_text(part) for part in parts):
        raise wrong(f"`{place}.content` must be text, or a list of text parts: teams read text only.", place)
    return {"role": _ROLES[role], "content": "".join(part["text"] for part in parts)}


def _is_text(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)
