"""One request: its conversations at the desk, and what is heard of them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from ..conversation.transcript import Message
from ..policy.remote import RemoteMemberError
from ..rollouts.talks import Piece, Talk
from ..team import Team
from .answers import Heading
from .desk import Desk, Ticket
from .errors import APIError, wrong
from .orders import Order


# Seconds between two looks at whether the client is still there
_LOOK = 0.2


class Visit:
    """
    A request, from its arrival to its answer. Its conversations wait at the desk from now on.

    Args:
        team ([`Team`]): Who is asked.
        order ([`Order`]): For what.
        desk ([`Desk`]): Holds the conversations.

    Attributes:
        talks (`list[Talk]`): The conversations, once they have all ended.
        heading ([`Heading`]): What all parts of the answer have in common.

    Raises:
        `APIError`: If too many wait already.
    """

    def __init__(self, team: Team, order: Order, desk: Desk):
        self.order, self._team = order, team
        wishes = order.wishes()
        self.heading = Heading(order.model, wishes[0].seed)
        self.last_turn = team.rules.max_turns - 1
        self._ended: dict[int, Talk] = {}
        self._loop, self._events = asyncio.get_running_loop(), asyncio.Queue[tuple[int, Any]]()
        self._tickets = [self._make_ticket(index, each) for index, each in enumerate(wishes)]
        desk.take(self._tickets)

    @property
    def talks(self) -> list[Talk]:
        """The conversations; all of them have ended."""
        return [self._ended[index] for index in range(self.order.n)]

    async def hear(
        self, is_gone: Callable[[], Awaitable[bool]], timeout: float
    ) -> AsyncIterator[tuple[int, Piece | Message | Talk]]:
        """
        What is heard of each conversation, by the index of its choice; at its end the conversation itself. What is not
        finished when the caller stops listening is cancelled.

        Args:
            is_gone (`Callable[[], Awaitable[bool]]`): Whether the client has gone away.
            timeout (`float`): Seconds from now to the end of the last one.

        Raises:
            `APIError`: If one has failed, it takes too long, or the client has gone away.
        """
        deadline = self._loop.time() + timeout
        try:
            while len(self._ended) < self.order.n:
                if self._loop.time() > deadline:
                    raise APIError(504, f"The answer was not there within {timeout:g} seconds.", "timeout", "timeout")
                try:
                    index, event = await asyncio.wait_for(self._events.get(), _LOOK)
                except TimeoutError:
                    if await is_gone():
                        raise APIError(499, "The client has gone away.") from None
                    continue
                if isinstance(event, Exception):
                    raise _as_api_error(event)
                if isinstance(event, Talk):
                    self._ended[index] = event
                yield index, event
        finally:
            for ticket in self._tickets:
                ticket.cancel()

    def _make_ticket(self, index: int, wishes: Any) -> Ticket:
        def tell(event: Any):
            # A client that has gone away may have taken its loop with it
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._events.put_nowait, (index, event))

        team, turns, private = self._team, self.order.turns, self.order.teamtr.agent_prompts
        prompt = turns if team.answers_conversations else "\n\n".join(turn["content"] for turn in turns)
        listen = tell if self.order.stream else None
        return Ticket(lambda: team.begin(prompt, private, wishes, listen), tell)


def _as_api_error(error: Exception) -> APIError:
    if isinstance(error, APIError):
        return error
    if isinstance(error, ValueError):  # of the prompt: too long, or refused by a template
        long = "has room for" in str(error)
        return wrong(str(error), "messages", "context_length_exceeded" if long else None)
    if isinstance(error, RemoteMemberError):
        return APIError(
            502, "A remote member of the team has not answered. The server's log has more.", "server_error"
        )
    return APIError(
        500, f"The team has failed with {type(error).__name__}. The server's log has more.", "server_error"
    )
