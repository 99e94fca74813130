"""A member whose model is behind an endpoint: it reads and writes text, and scores nothing."""

from collections.abc import Sequence

from accelerate import Accelerator

from ...agents.agent import Agent
from ...agents.settings import SamplingSettings, SpeakingSettings
from ...conversation.transcript import Message
from ...conversation.turn_rendering import END, TurnRenderer, decode_text
from ..backend import Written
from ..participant import Begun, Participant
from .chat_backend import RemoteBackend


class RemoteSpeaker(Participant):
    """
    A remote member of a team. Its views are the bytes of a conversation, and so are its messages ([`TurnRenderer`]): exact,
    whatever its tokenizer. Their length is for the endpoint to limit.

    Args:
        agent ([`Agent`]): The member.
        sampling ([`SamplingSettings`]): How it samples.
        accelerator ([`~accelerate.Accelerator`]): Of the processes that let it speak together.
        alone (`bool`): Whether the team has one agent.
    """

    def __init__(self, agent: Agent, sampling: SamplingSettings, accelerator: Accelerator, alone: bool = False):
        self._endpoint = RemoteBackend(agent, sampling, accelerator)
        super().__init__(agent, self._endpoint, accelerator, sampling, [END], alone=alone)

    @property
    def takes_conversations(self) -> bool:
        return True

    def check_endpoint(self):
        """Raise [`RemoteMemberError`] unless its endpoint is there and takes the key."""
        self._endpoint.check()

    def fix_date(self, date: str | None):
        """Nothing to do: the endpoint has its own."""

    def _make_renderer(self, chat: bool) -> TurnRenderer:
        return TurnRenderer(self.name, self.agent.system_prompt)

    def incremental_text(self, context: list[int]) -> None:
        return None

    def finish(self, begun: Begun, new: Sequence[Written]) -> list[Message]:
        return [
            Message(
                self.name,
                decode_text(written.ids),
                tuple(written.ids),
                not written.cut,
                thought=written.thought,
                tokens=written.tokens,
            )
            for written in new
        ]


def make_remote_speaker(
    agent: Agent, settings: SpeakingSettings, accelerator: Accelerator, alone: bool = False
) -> RemoteSpeaker:
    """
    The speaker of a remote member.

    Raises:
        `ValueError`: If its messages may have no token.
    """
    sampling = settings.sampling.with_own(agent)
    if sampling.max_completion_length is not None and sampling.max_completion_length < 1:
        raise ValueError(
            f"Agent {agent.name!r} has `max_completion_length={sampling.max_completion_length}`. It must be at least 1, or `None` "
            "for what its endpoint allows."
        )
    return RemoteSpeaker(agent, sampling, accelerator, alone)
