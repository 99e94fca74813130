"""A talk as it is generated: message by message, and each message piece by piece."""

import queue
import threading
from collections.abc import Callable, Iterator

from ..conversation.transcript import Message
from .talks import Piece, Talk


class StreamedMessage:
    """
    A message that is being generated. Iterating over it yields its text in pieces, as they come.

    Args:
        agent (`str`): Name of its author.
        turn (`int`): The turn, from 0.
        pieces (`Iterator[str]`): The pieces of its text.
    """

    def __init__(self, agent: str, turn: int, pieces: Iterator[str]):
        self.agent, self.turn = agent, turn
        self._pieces = pieces
        self._heard: list[str] = []

    def __iter__(self) -> Iterator[str]:
        for piece in self._pieces:
            self._heard.append(piece)
            yield piece

    @property
    def text(self) -> str:
        """The whole text; waits for its end."""
        for _ in self:
            pass
        return "".join(self._heard)

    def __str__(self) -> str:
        return f"{self.agent}: {self.text}"


def listen_to(begin: Callable[[Callable[[Piece | Message], None]], Talk]) -> Iterator[StreamedMessage]:
    """
    Generate a talk in a thread of its own, and yield its messages while they are generated. If the caller stops listening,
    the talk ends.

    Args:
        begin (`Callable`): Begins the talk, with the listener that it is given.
    """
    events: queue.SimpleQueue[Piece | Message | BaseException | None] = queue.SimpleQueue()
    talk = begin(events.put)

    def run():
        try:
            while not talk.ended:
                Talk.go_on([talk])
            talk.result()
        except BaseException as error:  # raised where it is listened to
            events.put(error)
        else:
            events.put(None)

    def hear() -> Piece | Message | None:
        event = events.get()
        if isinstance(event, BaseException):
            raise event
        return event

    def pieces() -> Iterator[str]:
        while isinstance(event := hear(), Piece):
            yield event.text

    thread = threading.Thread(target=run, name="talk", daemon=True)
    thread.start()
    try:
        while isinstance(first := hear(), Piece):
            message = StreamedMessage(first.agent, first.turn, pieces())
            yield message
            _ = message.text  # what the caller has not read
    finally:
        talk.cancelled = True
        thread.join()
