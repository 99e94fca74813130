"""
Scripted agents that play a world with tools, and the tiny models that learn from them.

The scripts play in the turn loop of a team, with its tools on its environment. What they wrote is what the models learn, with TRL's
`SFTTrainer`. The tokenizer has one token for each tool, each digit, and each word of results and talk. The list of tools with which
Qwen3's chat template begins, which is TRL's, is one unknown word: which tools there are, the models know from demonstrations.
"""

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from warm_start import fit_base, write_whole

from trl_teamtr.cli.link_team import fit


OPEN, CLOSE = "<|im_start|>", "<|im_end|>"
_CALL, _WITH, _CALLED = '<tool_call>\n{"name": "', '", "arguments": {"number": "', '"}}\n</tool_call>'
_CALLED_PLAINLY = '", "arguments": {}}\n</tool_call>'
_RESULT, _RESULT_END = "\n<tool_response>\n", "\n</tool_response>"
_LENGTH = 12  # tokens of a segment: longer than any that is right
_USE = {"max_tool_calling_iterations": 4, "max_tool_result_length": 32}  # more than any that is right needs

# What an agent writes next, of what it reads and of what says whether it overlooks something
Act = Callable[[str, Callable[[], bool]], str]


def call(name: str, number: str = "") -> str:
    """A call of a tool, as Qwen3 writes it."""
    return f"{_CALL}{name}{_WITH}{number}{_CALLED}" if number else f"{_CALL}{name}{_CALLED_PLAINLY}"


def read_view(text: str) -> tuple[list[str], dict[str, str]]:
    """
    What an agent reads: the last line of all that it was told, last what it answers now, and the results of the tools that it has
    called for this answer, each tool's last, in the order of the calls.
    """
    told, results, tool = [], {}, ""
    for turn in text.split(OPEN)[1:-1]:
        role, _, body = turn.partition("\n")
        body = body.removesuffix(CLOSE + "\n")
        if body.startswith(_RESULT[1:]):
            results.pop(tool, None)
            results[tool] = body.removeprefix(_RESULT[1:]).removesuffix(_RESULT_END)
        elif role == "user":
            told.append(body.rpartition("\n")[2].rpartition(": ")[2])
            results = {}
        elif body.startswith(_CALL):
            tool = body.removeprefix(_CALL).partition('"')[0]
    return told, results


def make_model(tokenizer, seed: int):
    """A random Qwen3 model with two layers and hidden size 64, whose views have room for agents that get nowhere."""
    from trl_teamtr.tasks import link

    return link.make_model(tokenizer, seed, max_length=512)


@dataclass(frozen=True)
class Game:
    """
    A world, and how it is played.

    Args:
        tools (`dict[str, list[str]]`): For each agent, in the order of the team, the methods that are its tools.
        acts (`dict[str, Act]`): For each agent its script.
        words (`Sequence[str]`): The tools, and what results and talk are made of, beside digits.
        environment (`Callable`): The team's `environment_factory`.
        turns (`dict`): Options for turn taking.
    """

    tools: dict[str, list[str]]
    acts: dict[str, Act]
    words: Sequence[str]
    environment: Callable[[], Any]
    turns: dict[str, Any]

    @property
    def options(self) -> dict[str, Any]:
        """Options of [`TeamTRConfig`] for a team that plays it."""
        return {**self.turns, "max_completion_length": _LENGTH, **_USE}

    def make_tokenizer(self):
        """The words of the game, and Qwen3's chat template."""
        from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
        from transformers import PreTrainedTokenizerFast
        from trl.chat_template_utils import qwen3_instruct_2507_chat_template

        roles = ("user", "assistant", "system", "\n", ": ", " ", ", ", "?", *"0123456789")
        forms = (_CALL, _WITH, _CALLED, _CALLED_PLAINLY, _RESULT, _RESULT_END)
        words = sorted([*roles, *forms, *self.words], key=len, reverse=True)
        vocab = {token: i for i, token in enumerate(["<|pad|>", "<|unk|>", OPEN, CLOSE, *words])}
        backend = Tokenizer(models.WordLevel(vocab, unk_token="<|unk|>"))
        pattern = "|".join(["# Tools[\\s\\S]+", *map(re.escape, words), "[A-Za-z]+", "[\\s\\S]"])
        backend.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
        backend.decoder = decoders.Fuse()
        return PreTrainedTokenizerFast(
            tokenizer_object=backend,
            pad_token="<|pad|>",
            unk_token="<|unk|>",
            eos_token=CLOSE,
            additional_special_tokens=[OPEN],
            padding_side="left",
            chat_template=qwen3_instruct_2507_chat_template,
        )

    def make_team(self, model, tokenizer):
        """A team of copies of a model, without a trainer."""
        from trl_teamtr import Agent, Team
        from trl_teamtr.agents.settings import SamplingSettings, SpeakingSettings
        from trl_teamtr.conversation.rules import TurnTaking
        from trl_teamtr.tools import ToolSettings

        team = [Agent(name, model, processing_class=tokenizer, tools=tools) for name, tools in self.tools.items()]
        settings = SpeakingSettings(SamplingSettings(max_completion_length=_LENGTH), tools=ToolSettings(**_USE))
        return Team.from_agents(team, settings, TurnTaking(**self.turns), environment_factory=self.environment)

    def play(self, rows: list[dict], careless: float, seed: int):
        """
        Rollouts of the scripted agents.

        Args:
            rows (`list[dict]`): Rows of the task.
            careless (`float`): How often each thing is overlooked.
            seed (`int`): Seed of what is.
        """
        tokenizer = self.make_tokenizer()
        team = self.make_team(make_model(tokenizer, 0), tokenizer)  # it has to have a model, which says nothing
        team.speak_through(_Script(self.acts, tokenizer, careless, random.Random(seed)))
        return team.collect(rows)

    def play_with(self, base: Path, rows: list[dict]):
        """Rollouts of copies of a saved model, at temperature 1, the same each time."""
        from transformers import Qwen3ForCausalLM, set_seed

        set_seed(0)
        return self.make_team(Qwen3ForCausalLM.from_pretrained(base), self.make_tokenizer()).collect(rows)

    def make_demonstrations(self, rows: list[dict], names: Sequence[str], careless: float, seed: int):
        """What agents read and wrote in rollouts of the scripted ones, shuffled. What they wrote is learned."""
        from datasets import Dataset

        rollouts, found = self.play(rows, careless, seed), []
        for view in (view for name in names for view in rollouts.views[name] if view.num_messages):
            own = [token if mask else -100 for token, mask in zip(view.completion_ids, view.mask, strict=True)]
            found.append({"input_ids": view.context, "labels": [-100] * len(view.prompt_ids) + own})
        random.Random(seed).shuffle(found)
        return Dataset.from_list(found)


def save_base(path: Path, tokenizer, demonstrate: Callable[[], Any], steps: int, batch_size: int):
    """Save a model that was fine-tuned on what `demonstrate` gives, unless it is there; with random weights for 0 steps."""

    def write(part: Path):
        model = make_model(tokenizer, 0)
        if steps:
            fit_base(model, tokenizer, demonstrate(), steps, batch_size)
        model.save_pretrained(part)

    write_whole(path, write)


def save_start(
    path: Path,
    base: Path,
    tokenizer,
    demonstrate: dict[str, Callable[[], Any]],
    steps: int,
    batch_size: int,
    seed: int,
):
    """
    Save the models of a seed, unless they are there.

    Args:
        path (`Path`): Folder of the team, which has one for each agent.
        base (`Path`): Folder of what they are fine-tuned from.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): Theirs.
        demonstrate (`dict[str, Callable]`): For each agent what makes its demonstrations.
        steps, batch_size (`int`): Of the fine-tuning; 0 steps for none.
        seed (`int`): Seed of the order of the demonstrations.
    """
    from transformers import Qwen3ForCausalLM

    def write(part: Path):
        for name, make in demonstrate.items():
            model = Qwen3ForCausalLM.from_pretrained(base)
            if steps:
                fit(model, tokenizer, make().take(steps * batch_size), steps, 5e-4, seed)
            for each in (model, tokenizer):
                each.save_pretrained(part / name)

    write_whole(path, write)


class _Script:
    """A generation backend that writes what scripted agents do."""

    def __init__(self, acts: dict[str, Act], tokenizer, careless: float, rng: random.Random):
        self._acts, self._tokenizer, self._overlooks = acts, tokenizer, lambda: rng.random() < careless

    def generate(self, requests):
        from trl_teamtr.policy.backend import Written

        views = [self._tokenizer.decode(each.context) for each in requests]
        texts = [self._acts[each.agent](view, self._overlooks) for each, view in zip(requests, views, strict=True)]
        return [Written(self._tokenizer(text + CLOSE)["input_ids"]) for text in texts]


def note_messages(transcript) -> list[list[str]]:
    """For each message its author, its calls with their results, and what it says in the end."""
    return [[message.agent, *map(str, message.tool_uses), message.text] for message in transcript.messages]


def show_messages(messages: list[list[str]]) -> list[str]:
    """What was noted, a line for each message."""
    return [f"    {agent}: {' | '.join(parts)}".replace("\n", " ") for agent, *parts in messages]
