"""The calls of tools in rollouts, and the state that environments have after them."""

from collections.abc import Callable, Sequence
from typing import Any

from accelerate import Accelerator

from ..conversation.transcript import ToolUse, Transcript
from ..policy.participant import Participant
from ..policy.processes import union
from ..tools import Done, Environments, World, calls_of
from ..tools.worlds import REBUILD, TEAM


class Acting:
    """
    Opens the environments of rollouts, and brings them into the state that a rollout has reached.

    Args:
        speakers (`Sequence[Participant]`): The team.
        environments ([`Environments`], *optional*): Those of its rollouts.
        accelerator ([`~accelerate.Accelerator`]): For the agreement between processes.
    """

    def __init__(self, speakers: Sequence[Participant], environments: Environments | None, accelerator: Accelerator):
        self.environments = environments
        self._speakers, self._accelerator = {speaker.name: speaker for speaker in speakers}, accelerator

    @property
    def is_rebuilt(self) -> bool:
        """Whether an earlier state is found only by executing all calls of a rollout anew, perhaps with other results."""
        return self.environments is not None and self.environments.kind == REBUILD

    def open(self, transcripts: Sequence[Transcript], rows: Sequence[dict[str, Any]]):
        """Give `transcripts` the environments of their rows. All processes call this together, and raise together."""
        environments = self.environments
        if environments is None:
            return
        self._together(
            lambda: [self._set(t, environments.open(row)) for t, row in zip(transcripts, rows, strict=True)]
        )

    def rebuild(self, transcripts: Sequence[Transcript]):
        """Let the environments of `transcripts`, which have no messages, begin anew. All processes call this together."""
        self._together(lambda: [self._reset(transcript) for transcript in transcripts])

    def fork(self, transcripts: Sequence[Transcript]):
        """Give `transcripts`, which have the environments of others, their own. All processes call this together."""
        environments = self.environments
        if environments is not None:
            self._together(lambda: [self._set(each, environments.fork(each.world)) for each in transcripts])

    def reach(self, transcript: Transcript, author: str | None = None, uses: Sequence[ToolUse] = ()):
        """
        Bring the environments of a rollout into their state after its messages, and after the `uses` of a message that its
        `author` has begun.
        """
        done = [each for message in transcript.messages for each in calls_of(message.agent, message.tool_uses)]
        if author is not None:
            done += calls_of(author, uses)
        world: World = transcript.world
        world.reach(done, lambda each: self._call(each, world))

    def _call(self, done: Done, world: World) -> str:
        tools = self._speakers[done.agent].tools
        assert tools is not None  # it has called one
        return tools.call(done.call, world).text

    def _reset(self, transcript: Transcript):
        transcript.world.reset()
        self._set(transcript, transcript.world)

    def _set(self, transcript: Transcript, world: World):
        transcript.world, seen = world, world.observations
        texts = {name: [seen[owner] for owner in (TEAM, name) if owner in seen] for name in self._speakers}
        transcript.observations = {name: "\n\n".join(parts) for name, parts in texts.items() if parts}

    def _together(self, begin: Callable[[], Any]):
        """Raise on all processes if it fails on one: the others would wait for it in the next generation."""
        cause: Exception | None = None
        try:
            begin()
        except Exception as error:  # of the user's environment; raised below
            cause = error
        faults = union(self._accelerator, set() if cause is None else {f"{type(cause).__name__}: {cause}"})
        if faults:
            raise RuntimeError(
                f"An environment could not begin: {sorted(faults)[0]}. Mend its `reset`, and resume the run from its last checkpoint."
            ) from cause
