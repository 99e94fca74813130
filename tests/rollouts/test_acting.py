"""Environments of rollouts are opened together, and reach the state that a rollout has reached."""

from types import SimpleNamespace

import pytest
from accelerate import Accelerator
from tokenizers_for_tests import tokenizer_for
from tool_teams import PROMPT, Lots
from trl.chat_template_utils import qwen3_chat_template

from trl_teamtr.conversation.transcript import Message, ToolCall, ToolUse, Transcript
from trl_teamtr.rollouts.acting import Acting
from trl_teamtr.tools import Environments, ToolSettings, ToolUser
from trl_teamtr.tools.worlds import TEAM


class Sums:
    """Adds and doubles: the order of the calls decides."""

    deterministic = True

    def reset(self, start=0, **row):
        self.total = start
        return f"It is {start}."

    def add(self) -> str:
        """Adds one."""
        self.total += 1
        return str(self.total)

    def double(self) -> str:
        """Doubles."""
        self.total *= 2
        return str(self.total)


class Private(Sums):
    def reset(self, **row):
        super().reset()
        return "Yours alone."


def make_acting(factories):
    """Of two agents, of which only their tools matter."""
    environments, tokenizer = Environments(factories, ["x", "y"], {}), tokenizer_for(qwen3_chat_template)
    speakers = [
        SimpleNamespace(name=name, tools=ToolUser(name, environments.tools_of(name), tokenizer, ToolSettings()))
        for name in ("x", "y")
    ]
    return Acting(speakers, environments, Accelerator())


def open_transcripts(acting, rows):
    transcripts = [Transcript(PROMPT, ("x", "y")) for _ in rows]
    acting.open(transcripts, rows)
    return transcripts


def says(agent, *uses):
    calls = [ToolUse(2 * i + 2, (ToolCall(name),), (result,), (False,)) for i, (name, result) in enumerate(uses)]
    return Message(agent, "", tuple(range(2 * len(uses) + 2)), tool_uses=tuple(calls))


def test_every_rollout_gets_an_environment_and_agents_what_they_see():
    acting = make_acting({TEAM: Sums, "y": Private})
    first, second = open_transcripts(acting, [{"prompt": "a", "start": 1}, {"prompt": "a", "start": 5}])
    assert (first.world.team.total, second.world.team.total) == (1, 5)
    assert first.observations == {"x": "It is 1.", "y": "It is 1.\n\nYours alone."}
    assert second.observations["x"] == "It is 5." and first.world.team is not second.world.team


def test_without_environments_nothing_is_opened():
    acting = Acting([], None, Accelerator())
    transcript = Transcript(PROMPT, ("x",))
    acting.open([transcript], [{"prompt": "a"}])
    assert transcript.world is None and transcript.observations == {} and not acting.is_rebuilt


def test_the_state_after_a_rollout_has_all_calls_in_their_order():
    """Whoever made them, those of a message that has begun last."""
    acting = make_acting({TEAM: Sums})
    (transcript,) = open_transcripts(acting, [{"prompt": "a", "start": 1}])
    transcript.messages += [says("x", ("add", "2"), ("double", "4")), says("y", ("add", "5"))]
    acting.reach(transcript)
    assert transcript.world.team.total == 5
    acting.reach(transcript, "x", says("x", ("double", "10")).tool_uses)
    assert transcript.world.team.total == 10
    transcript.messages.pop()
    acting.reach(transcript)
    assert transcript.world.team.total == 4


@pytest.mark.parametrize("order", [(1, 0), (0, 2, 1)])
def test_calls_in_another_order_are_found_out(order):
    acting = make_acting({TEAM: Sums})
    (transcript,) = open_transcripts(acting, [{"prompt": "a", "start": 1}])
    messages = [says("x", ("add", "2")), says("y", ("double", "4")), says("x", ("add", "5"))]
    transcript.messages = [messages[i] for i in order]
    with pytest.raises(RuntimeError, match="says that it is `deterministic`, but (add|double)"):
        acting.reach(transcript)


def test_environments_that_are_rebuilt_begin_anew():
    acting = make_acting({TEAM: Lots})
    assert acting.is_rebuilt and not make_acting({TEAM: Sums}).is_rebuilt
    (transcript,) = open_transcripts(acting, [{"prompt": "a"}])
    transcript.world.team.last = "b"
    acting.rebuild([transcript])
    assert transcript.world.team.last is None


def test_what_a_reset_raises_names_it_and_is_the_cause():
    class Broken(Sums):
        def reset(self, **row):
            raise OSError("no connection")

    acting = make_acting({TEAM: Broken})
    with pytest.raises(RuntimeError, match="could not begin: OSError: no connection. Mend its `reset`") as caught:
        open_transcripts(acting, [{"prompt": "a"}])
    assert isinstance(caught.value.__cause__, OSError)
