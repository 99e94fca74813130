"""Agents that are trained, and say nothing: nothing can be learned from their rollouts."""

import warnings
from collections import Counter

from accelerate.utils import gather_object

from ..policy.speaker import Speaker
from ..rollouts.rollouts import Rollouts


class SilenceWatch:
    """Counts, for each agent, the updates in a row on whose rollouts it did not speak."""

    # A router that draws at random may leave out an agent in a small batch; not so often
    PATIENCE = 5

    def __init__(self):
        self._in_a_row: Counter[str] = Counter()

    def look(self, speaker: Speaker, rollouts: Rollouts) -> bool:
        """
        Whether the agent was silent in all rollouts of its update. Warns when it was five times in a row.

        Args:
            speaker ([`Speaker`]): The agent.
            rollouts (`Rollouts`): Of this process. All processes call this together.

        Raises:
            `RuntimeError`: If it was its turn, and it had no room for a message.
        """
        spoken = sum(view.num_messages for view in rollouts.views[speaker.name])
        without_room = sum(name == speaker.name for name in rollouts.full.values())
        found = gather_object([(spoken, without_room, len(rollouts.transcripts))])
        if sum(spoken for spoken, _, _ in found):
            self._in_a_row[speaker.name] = 0
            return False
        without_room, total = sum(each for _, each, _ in found), sum(each for _, _, each in found)
        if without_room:
            raise RuntimeError(
                f"Agent {speaker.name!r} has said nothing in {total} rollouts, although it was its turn in {without_room}: its "
                f"context holds {speaker.max_view_length} tokens, of which `max_completion_length` "
                f"({speaker.sampling.max_completion_length}) are for the message, and what it has to read takes more than "
                f"the other {speaker.room}. Shorten its prompts, lower `max_completion_length`, or raise "
                "`max_context_length` if the model allows it."
            )
        self._in_a_row[speaker.name] += 1
        if self._in_a_row[speaker.name] == self.PATIENCE:
            warnings.warn(
                f"Agent {speaker.name!r} was not asked to speak in any rollout of its last {self.PATIENCE} updates, so "
                "nothing was learned. Use more rollouts or turns, a router that asks it, or `trainable=False`.",
                stacklevel=2,
            )
        return True
