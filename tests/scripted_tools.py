"""Teams with tools that write what they are told, through Qwen3's template."""

import json

from tiny import make_config, make_model
from tokenizers_for_tests import tokenizer_for
from trl.chat_template_utils import qwen3_chat_template

from trl_teamtr import TeamTRTrainer
from trl_teamtr.policy.backend import Written


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


def make_scripted(folder, agents, dataset, positions=16_384, fields=None, **arguments):
    """A trainer of `agents`, whose models are made here, and their tokenizer."""
    tokenizer = tokenizer_for(qwen3_chat_template)
    tokenizer.eos_token = "<|im_end|>"
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    for seed, agent in enumerate(agents):
        agent.model = make_model(
            len(tokenizer), seed, max_position_embeddings=positions, eos_token_id=end, pad_token_id=0
        )
        agent.processing_class = tokenizer
    args = make_config(folder, **({"max_completion_length": 256, "max_tool_result_length": 256} | (fields or {})))
    return TeamTRTrainer(agents, args=args, train_dataset=dataset, **arguments), tokenizer
