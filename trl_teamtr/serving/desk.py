"""Holds conversations of concurrent requests in common batches, in one thread."""

import collections
import contextlib
import threading
from collections.abc import Callable

from accelerate.logging import get_logger

from ..rollouts.talks import Talk
from .errors import APIError


logger = get_logger(__name__)


class Ticket:
    """
    A conversation that was asked for.

    Args:
        begin (`Callable[[], Talk]`): Begins it; called in the thread of the desk.
        on_end (`Callable[[Talk | Exception], None]`): Called there once, with the conversation when it has ended, or with the
            error that has ended it. Not called for one that was cancelled.

    Attributes:
        talk ([`Talk`], *optional*): The conversation, once it has begun.
        cancelled (`bool`): Whether nobody waits for it any more.
    """

    def __init__(self, begin: Callable[[], Talk], on_end: Callable[[Talk | Exception], None]):
        self.begin, self.on_end = begin, on_end
        self.talk: Talk | None = None
        self.cancelled = False

    def cancel(self):
        """Nobody waits for it any more: its row is free at the next token."""
        self.cancelled = True
        if self.talk is not None:
            self.talk.cancelled = True


class Desk:
    """
    Lets conversations take their turns together: those that wait join after each turn, as long as there is room.

    Args:
        max_talks (`int`): Conversations held at a time.
        max_waiting (`int`): Conversations that wait.
    """

    def __init__(self, max_talks: int, max_waiting: int):
        self._max_talks, self._max_waiting = max_talks, max_waiting
        self._waiting: collections.deque[Ticket] = collections.deque()
        self._talking: list[Ticket] = []
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="desk", daemon=True)

    def open(self):
        """Start the thread."""
        self._thread.start()

    def close(self):
        """Cancel all conversations, and wait for the thread."""
        with self._changed:
            self._closed = True
            for ticket in [*self._waiting, *self._talking]:
                ticket.cancel()
            self._changed.notify()
        self._thread.join()

    @property
    def load(self) -> dict[str, int]:
        """Numbers of conversations that are held and that wait."""
        with self._changed:
            return {"talking": len(self._talking), "waiting": sum(not ticket.cancelled for ticket in self._waiting)}

    def take(self, tickets: list[Ticket]):
        """
        Let conversations wait for a place.

        Raises:
            `APIError`: If there are too many already.
        """
        with self._changed:
            self._waiting = collections.deque(ticket for ticket in self._waiting if not ticket.cancelled)
            free = self._max_talks - len(self._talking) + self._max_waiting
            if self._closed or len(self._waiting) + len(tickets) > free:
                raise APIError(
                    429,
                    f"The server is busy: {len(self._talking)} conversations are held and {len(self._waiting)} wait. Try again "
                    "later.",
                    "rate_limit_error",
                    "rate_limit_exceeded",
                )
            self._waiting.extend(tickets)
            self._changed.notify()

    def _run(self):
        while self._admit():
            teams: dict[int, list[Ticket]] = {}
            for ticket in self._talking:
                assert ticket.talk is not None  # it was begun when it was admitted
                teams.setdefault(ticket.talk.team_key, []).append(ticket)
            for tickets in teams.values():
                self._take_turn(tickets)
            with self._changed:
                self._talking = [ticket for ticket in self._talking if ticket.talk and not ticket.talk.ended]

    def _admit(self) -> bool:
        """Begin conversations that wait, or wait for one. Returns whether the desk is open."""
        with self._changed:
            while not self._closed and not self._waiting and not self._talking:
                self._changed.wait()
            room = self._max_talks - len(self._talking)
            new = [self._waiting.popleft() for _ in range(min(room, len(self._waiting)))]
            self._talking += new
        for ticket in new:
            self._begin(ticket)
        with self._changed:
            self._talking = [ticket for ticket in self._talking if ticket.talk is not None and not ticket.talk.ended]
            return not self._closed

    def _begin(self, ticket: Ticket):
        if ticket.cancelled:
            return
        with self._reporting([ticket]):
            ticket.talk = ticket.begin()
            if ticket.cancelled:
                ticket.talk.cancelled = True
            elif ticket.talk.ended:  # by its router
                ticket.on_end(ticket.talk)

    def _take_turn(self, tickets: list[Ticket]):
        talks = [ticket.talk for ticket in tickets if ticket.talk is not None]
        with self._reporting(tickets):
            Talk.go_on(talks)
        for ticket, talk in zip(tickets, talks, strict=True):
            if talk.ended and not ticket.cancelled:
                ticket.on_end(talk if talk.error is None else talk.error)

    @contextlib.contextmanager
    def _reporting(self, tickets: list[Ticket]):
        """Context in which an error ends `tickets`, and not the desk."""
        try:
            yield
        except Exception as error:
            if not isinstance(error, APIError | ValueError):
                logger.exception("A conversation has failed.")
            for ticket in tickets:
                if not ticket.cancelled:
                    ticket.on_end(error)
                ticket.cancel()
