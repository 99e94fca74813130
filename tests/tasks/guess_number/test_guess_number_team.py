"""A team plays guess-a-number through its tools, as scripted agents would."""

import json

from tiny import make_config, make_model
from tokenizers_for_tests import tokenizer_for
from trl.chat_template_utils import qwen3_chat_template

from trl_teamtr import Agent, TeamTRTrainer
from trl_teamtr.policy.backend import Written
from trl_teamtr.tasks.guess_number.environment import IN_PLACE_TOOLS, MISPLACED_TOOLS, GuessNumber
from trl_teamtr.tasks.loading import load_split


class Scripted:
    """Writes what `plays` says of an agent and the number of its segments so far; a row at a time."""

    def __init__(self, tokenizer, plays):
        self._tokenizer, self._plays, self._count = tokenizer, plays, {}

    def generate(self, requests):
        found = []
        for request in requests:
            number = self._count[request.agent] = self._count.get(request.agent, -1) + 1
            said = self._plays(request.agent, number)
            found.append(Written(self._tokenizer(f"{said}<|im_end|>", add_special_tokens=False)["input_ids"]))
        return found

    def publish(self, agent): ...

    def rest(self): ...

    def close(self): ...


def call(name, **arguments):
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


def make_trainer(folder, agents, dataset, **arguments):
    tokenizer = tokenizer_for(qwen3_chat_template)
    tokenizer.eos_token = "<|im_end|>"
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    for seed, agent in enumerate(agents):
        agent.model = make_model(
            len(tokenizer), seed, max_position_embeddings=16_384, eos_token_id=end, pad_token_id=0
        )
        agent.processing_class = tokenizer
    args = make_config(folder, max_completion_length=256, max_tool_result_length=256)
    return TeamTRTrainer(agents, args=args, train_dataset=dataset, **arguments), tokenizer


def test_two_halves_of_the_feedback_find_the_number_and_the_environment_says_so(tmp_path):
    dataset = load_split("guess_number", "train", 8, 0, length=2, alphabet="0123", num_guesses=0)
    agents = [Agent("a", "", tools=IN_PLACE_TOOLS), Agent("b", "", tools=MISPLACED_TOOLS)]
    trainer, tokenizer = make_trainer(tmp_path, agents, dataset, environment_factory=GuessNumber)
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
