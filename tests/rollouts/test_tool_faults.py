"""What a team makes of calls that go wrong, and of many: through whole turns of agents that write what they are told."""

import pytest
from datasets import Dataset
from scripted_tools import Scripted, call, make_scripted

from trl_teamtr import Agent
from trl_teamtr.conversation.tool_calls import UNREADABLE
from trl_teamtr.reports.rollout_metrics import measure_rollouts


ROW = {"prompt": [{"role": "user", "content": "How many?"}]}
DATASET = Dataset.from_list([ROW] * 8)


class Counter:
    """Counts up."""

    deterministic = True

    def reset(self, **row):
        self.count = 0

    def add(self, much: int) -> int:
        """
        Adds.

        Args:
            much: How much.
        """
        if much > 1000:
            raise ValueError("too much")
        self.count += much
        return self.count


def play(folder, plays, positions=16_384, fields=None, **own):
    """The rollout of `a`, which plays, and of `b`, which says that it has heard; and the team."""
    agents = [Agent("a", "", **own), Agent("b", "", tools=[])]
    trainer, tokenizer = make_scripted(
        folder,
        agents,
        DATASET,
        positions,
        fields,
        environment_factory=Counter,
        reward_funcs=lambda prompts, **_: [0.0] * len(prompts),
    )
    trainer.team.speak_through(
        Scripted(tokenizer, lambda agent, number: plays(number) if agent == "a" else "I heard.")
    )
    return trainer.team.collect([ROW]), trainer, tokenizer


def first_message(rollouts):
    return rollouts.transcripts[0].messages[0]


FAULTS = {
    "raises": (call("add", much=2000), "too much"),
    "does not exist": (call("subtract", much=1), "There is no tool 'subtract'"),
    "malformed JSON": ('<tool_call>\n{"name": "add", "arguments": {"much": 1\n</tool_call>', "could not be read"),
    "no object": ('<tool_call>\n{"name": "add", "arguments": [1]}\n</tool_call>', "are not a JSON object"),
    "other arguments": (call("add", many=1), "does not take these arguments"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_call_that_goes_wrong_is_read_and_counted_and_the_message_goes_on(tmp_path, fault):
    written, error = FAULTS[fault]
    rollouts, trainer, tokenizer = play(tmp_path, lambda number: [written, call("add", much=3), "Three."][number])
    message, transcript = first_message(rollouts), rollouts.transcripts[0]
    wrong, right = message.tool_uses
    assert wrong.failed == (True,) and error in wrong.results[0] and right.results == ("3",)
    assert message.text == "Three." and transcript.world.team.count == 3
    view = rollouts.views["a"][0]
    assert error in tokenizer.decode(view.context) and sum(view.mask) == len(message.ids)
    found = measure_rollouts(rollouts, "a", trainer.accelerator, has_tools=True).values
    assert (found["tools/a/calls"], found["tools/a/failures"]) == (2, 0.5)
    assert (wrong.calls[0].name == UNREADABLE) == (fault == "malformed JSON")


def test_a_tool_may_be_called_a_hundred_times_in_a_message(tmp_path):
    rollouts, _, _ = play(tmp_path, lambda number: call("add", much=1) if number < 100 else "A hundred.")
    message = first_message(rollouts)
    assert [use.results for use in message.tool_uses] == [(str(count),) for count in range(1, 101)]
    assert message.text == "A hundred." and rollouts.transcripts[0].world.team.count == 100
    assert len(message.edges) == 102 and rollouts.views["a"][0].num_messages == 1
    assert rollouts.transcripts[0].messages[1].text == "I heard."


def test_and_a_hundred_times_at_once(tmp_path):
    at_once = "\n".join(call("add", much=1) for _ in range(100))
    fields = {"max_completion_length": 8000, "max_tool_result_length": 8}
    rollouts, _, _ = play(tmp_path, lambda number: [at_once, "Done."][number], 40_000, fields)
    (use,) = first_message(rollouts).tool_uses
    assert use.results == tuple(str(count) for count in range(1, 101)) and first_message(rollouts).text == "Done."


@pytest.mark.parametrize("most", [None, 3])
def test_calls_without_end_end_for_room_or_at_their_maximum(tmp_path, most):
    fields = {"max_tool_calling_iterations": most, "max_tool_result_length": 8, "max_completion_length": 64}
    rollouts, _, _ = play(tmp_path, lambda number: call("add", much=1), 2048, fields)
    message = first_message(rollouts)
    assert rollouts.transcripts[0].world.team.count == len(message.tool_uses) and message.text == ""
    # No call is executed whose result would have no room
    assert (len(message.tool_uses), rollouts.tools_without_room) == ((3, 0) if most else (len(message.tool_uses), 1))
    assert 3 <= len(message.tool_uses) < 100 and len(rollouts.views["a"][0].context) <= 2048
    assert rollouts.transcripts[0].messages[1].text == "I heard."


@pytest.mark.parametrize("visibility", ["caller", "all"])
def test_teammates_read_the_answer_or_everything(tmp_path, visibility):
    thought = "<think>\nhm\n</think>\n\n"
    said = [f"{thought}I add.\n{call('add', much=7)}", f"{thought}Seven."]
    rollouts, trainer, tokenizer = play(tmp_path, lambda number: said[number], tool_visibility=visibility)
    message = first_message(rollouts)
    assert (message.text, message.thought) == ("Seven.", "hm\n\nhm")
    heard = tokenizer.decode(rollouts.views["b"][0].prompt_ids)
    shown = {"caller": "a: Seven.", "all": 'a: I add.\nadd({"much": 7}) -> 7\nSeven.'}[visibility]
    assert f"How many?\n\n{shown}<|im_end|>" in heard and "hm" not in heard.replace(shown, "")
    assert "hm" in tokenizer.decode(rollouts.views["a"][0].context)
