"""The limits of a server."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ServerSettings:
    """
    What a server allows.

    Args:
        name (`str`): The team's name among the models; its members are `{name}/{agent}`.
        api_key (`str`, *optional*): Key that requests must have; none if not given.
        max_talks (`int`): Conversations held at a time, in common batches.
        max_waiting (`int`): Conversations that wait for a place. Others are refused.
        max_choices (`int`): Largest `n` of a request.
        timeout (`float`): Seconds from a request to the end of its answer.
        max_body (`int`): Largest body of a request, in bytes.

    Raises:
        `ValueError`: If a limit allows nothing.
    """

    name: str = "team"
    api_key: str | None = None
    max_talks: int = 16
    max_waiting: int = 64
    max_choices: int = 8
    timeout: float = 600.0
    max_body: int = 1 << 20

    def __post_init__(self):
        for name in ("max_talks", "max_waiting", "max_choices", "timeout", "max_body"):
            if vars(self)[name] <= 0:
                raise ValueError(f"`{name}` must be positive, got {vars(self)[name]}.")
        if self.api_key is not None and not self.api_key.strip():
            raise ValueError("`api_key` is empty. Pass a key, or none to serve everyone who reaches the port.")
