"""Members whose messages are written behind an endpoint of OpenAI's API."""

from .endpoint import RemoteMemberError
from .remote_speaker import RemoteSpeaker, make_remote_speaker


__all__ = [
    "RemoteMemberError",
    "RemoteSpeaker",
    "make_remote_speaker",
]
