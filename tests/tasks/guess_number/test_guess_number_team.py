"""A team plays guess-a-number through its tools, as scripted agents would."""

from scripted_tools import Scripted, call, make_scripted

from trl_teamtr import Agent
from trl_teamtr.tasks.guess_number.environment import IN_PLACE_TOOLS, MISPLACED_TOOLS, GuessNumber
from trl_teamtr.tasks.loading import load_split


def test_two_halves_of_the_feedback_find_the_number_and_the_environment_says_so(tmp_path):
    dataset = load_split("guess_number", "train", 8, 0, length=2, alphabet="0123", num_guesses=0)
    agents = [Agent("a", "", tools=IN_PLACE_TOOLS), Agent("b", "", tools=MISPLACED_TOOLS)]
    trainer, tokenizer = make_scripted(tmp_path, agents, dataset, environment_factory=GuessNumber)
    row = dataset[0]

    def plays(agent, number):
        if agent == "a":
            return [call("guess", number="01"), call("hear_in_place"), "I heard it."][number]
        return [call("hear_in_place"), call("guess", number=row["secret"]), "Found."][number]

    trainer.team.speak_through(Scripted(tokenizer, plays))
    (transcript,) = trainer.team.collect([row]).transcripts
    first, second = transcript.messages
    assert [use.calls[0].name for use in first.tool_uses] == ["guess", "hear_in_place"] and first.text == "I heard it."
    assert (
        second.tool_uses[0].failed == (True,) and "There is no tool 'hear_in_place'" in second.tool_uses[0].results[0]
    )
    assert transcript.world.rewards() == {"GuessNumber": 1.0} and "10 guesses" in transcript.observations["a"]
    assert trainer.compute_returns([row], [transcript]).tolist() == [1.0]
    heard = [tokenizer.decode(trainer.team.speakers[1].renderer_for(row["prompt"]).opening(transcript, [first]))]
    assert "a: I heard it." in heard[0] and "in place" not in heard[0].split("a: I heard it.")[1]
