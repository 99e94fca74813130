"""
The models that benchmarks/service_desk.py starts from: they know the service, and overlook much of it.

Two scripted agents play the service desk in the turn loop of a team, with its tools on its database. What they wrote is what the
models learn, with TRL's `SFTTrainer`. One base, the same for all seeds, learns both parts from agents that overlook nothing. For
each seed each agent is then fine-tuned on its own part, played carelessly: each thing that is to be done, or to be said, is
overlooked four times of ten. So what the start lacks is the habit, not the knowledge. No demonstration is of a held-out task.

The tokenizer has one token for each tool, each digit, and each word of results and talk. The list of tools with which Qwen3's chat
template begins, which is TRL's, is one unknown word: which tools there are, the models know from demonstrations.
"""

import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from warm_start import fit_base, write_whole

from trl_teamtr.cli.link_team import fit
from trl_teamtr.tasks.service_desk.cases import PLANS, QUESTIONS
from trl_teamtr.tasks.service_desk.environment import ASSISTANT_TOOLS, USER_TOOLS, ServiceDesk


TASK = {"num_accounts": 3, "digits": 2, "style": "terse"}
TOOLS = {"user": USER_TOOLS, "assistant": ASSISTANT_TOOLS}  # the team, in its order
END = "bye"  # what the user says last
TURNS = {"num_rounds": 4, "stop_string": END}
LENGTH = 12  # tokens of a segment: longer than any that is right
USE = {"max_tool_calling_iterations": 4, "max_tool_result_length": 32}
CARELESS = 0.4
SHOWN, BATCH, BASE_STEPS, CARELESS_SHOWN, CARELESS_STEPS = 3000, 32, 600, 1000, 25

_OPEN, _CLOSE, _CALL, _WITH = "<|im_start|>", "<|im_end|>", '<tool_call>\n{"name": "', '", "arguments": {"number": "'
_RESULT, _RESULT_END = "\n<tool_response>\n", "\n</tool_response>"
_CALLED = '"}}\n</tool_call>'
_CALLED_PLAINLY = '", "arguments": {}}\n</tool_call>'
_WORDS = [
    *("user", "assistant", "system", "\n", ": ", " ", ", ", "?", *"0123456789"),
    *(_CALL, _WITH, _CALLED, _CALLED_PLAINLY, _RESULT, _RESULT_END, *ASSISTANT_TOOLS, *USER_TOOLS, *PLANS),
    *("plan: ", "data left: ", " GB", "bill: ", "none", "overdue", "sent", "paid", "line: ", "active", "suspended"),
    *("roaming: ", "allowed", "not allowed", "connected", "no connection", "airplane mode: ", "on", "off"),
    *("The bill was sent.", "The line is active.", "Roaming is allowed.", "The bill is paid."),
    *("plan", "data", "pay", "roam", "check", "ok", END),
]


def make_tokenizer():
    """Words of the service desk, and Qwen3's chat template."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast
    from trl.chat_template_utils import qwen3_instruct_2507_chat_template

    words = sorted(_WORDS, key=len, reverse=True)
    vocab = {token: i for i, token in enumerate(["<|pad|>", "<|unk|>", _OPEN, _CLOSE, *words])}
    backend = Tokenizer(models.WordLevel(vocab, unk_token="<|unk|>"))
    pattern = "|".join(["# Tools[\\s\\S]+", *map(re.escape, words), "[A-Za-z]+", "[\\s\\S]"])
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<|pad|>",
        unk_token="<|unk|>",
        eos_token=_CLOSE,
        additional_special_tokens=[_OPEN],
        padding_side="left",
        chat_template=qwen3_instruct_2507_chat_template,
    )


def make_model(tokenizer, seed: int):
    """A random Qwen3 model with two layers and hidden size 64, whose views have room for two agents that get nowhere."""
    from trl_teamtr.tasks import link

    return link.make_model(tokenizer, seed, max_length=512)


# The scripted agents: from what one reads, turn by turn, to what it writes


def call(name: str, number: str = "") -> str:
    """A call of a tool, as Qwen3 writes it."""
    return f"{_CALL}{name}{_WITH}{number}{_CALLED}" if number else f"{_CALL}{name}{_CALLED_PLAINLY}"


def read_view(text: str) -> tuple[list[str], dict[str, str]]:
    """
    What an agent reads: all that it was told, last what it answers now, and the results of the tools that it has called for this
    answer, in their order.
    """
    told, results, tool = [], {}, ""
    for turn in text.split(_OPEN)[1:-1]:
        role, _, body = turn.partition("\n")
        body = body.removesuffix(_CLOSE + "\n")
        if body.startswith(_RESULT[1:]):
            results.pop(tool, None)  # the last is last
            results[tool] = body.removeprefix(_RESULT[1:]).removesuffix(_RESULT_END)
        elif role == "user":
            told.append(body.rpartition("\n")[2].rpartition(": ")[2])
            results = {}
        elif body.startswith(_CALL):
            tool = body.removeprefix(_CALL).partition('"')[0]
    return told, results


def act_as_user(text: str, overlooks: Callable[[], bool]) -> str:
    """What the user writes next."""
    told, results = read_view(text)
    task, asked, first = told[0], told[-1], len(told) == 1
    state = results.get("check_phone", "")
    for end, tool, after in (("pay", "pay_bill", "paid"), ("roam", "toggle_roaming", END)):
        if asked.endswith(end):
            return after if tool in results else END if overlooks() else call(tool)
    if not first and not asked.endswith("check"):
        return END
    if not state or list(results)[-1] == "toggle_airplane_mode":
        return call("check_phone")
    if "airplane mode: on" in state and not overlooks():
        return call("toggle_airplane_mode")
    connection = state.partition(",")[0]
    if connection == "connected" and (not first or " " not in task):
        return END
    return f"{task} {connection}" if first else connection


def act_as_assistant(text: str, overlooks: Callable[[], bool]) -> str:
    """What the assistant writes next."""
    told, results = read_view(text)
    (number, *rest), asked, account = told[0].split(" "), told[-1], results.get("look_up", "")
    if len(told) == 1 and not account:
        return call("look_up", number)
    if asked == "paid":
        return "check" if "resume_line" in results else call("resume_line", number)
    answer = ""
    if not {"send_bill", "allow_roaming"} & set(results):
        if "bill: overdue" in account and not overlooks():
            return call("send_bill", number)
        if asked.endswith("no connection") and not overlooks():
            return call("allow_roaming", number)
    said = "pay" if "send_bill" in results else "roam" if "allow_roaming" in results else "ok"
    if account and rest[0] in QUESTIONS and not overlooks():
        plan, left, *_ = account.split(", ")
        answer = {"plan": plan, "data": left.removesuffix(" GB")}[rest[0]].partition(": ")[2]
    return f"{answer} {said}" if answer else said


ACTS = {"user": act_as_user, "assistant": act_as_assistant}


class Script:
    """A generation backend that writes what a scripted agent does."""

    def __init__(self, tokenizer, careless: float, rng: random.Random):
        self._tokenizer, self._overlooks = tokenizer, lambda: rng.random() < careless

    def generate(self, requests):
        from trl_teamtr.policy.backend import Written

        texts = [ACTS[each.agent](self._tokenizer.decode(each.context), self._overlooks) for each in requests]
        return [Written(self._tokenizer(text + _CLOSE)["input_ids"]) for text in texts]


def make_team(models: dict[str, Any], tokenizer):
    """The two agents with their tools, without a trainer."""
    from trl_teamtr import Agent, Team
    from trl_teamtr.agents.settings import SamplingSettings, SpeakingSettings
    from trl_teamtr.conversation.rules import TurnTaking
    from trl_teamtr.tools import ToolSettings

    team = [Agent(name, models[name], processing_class=tokenizer, tools=tools) for name, tools in TOOLS.items()]
    settings = SpeakingSettings(SamplingSettings(max_completion_length=LENGTH), tools=ToolSettings(**USE))
    return Team.from_agents(team, settings, TurnTaking(**TURNS), environment_factory=ServiceDesk)


def play(rows: list[dict], careless: float, seed: int):
    """
    Rollouts of the scripted agents.

    Args:
        rows (`list[dict]`): Rows of the task.
        careless (`float`): How often each thing is overlooked.
        seed (`int`): Seed of what is.
    """
    tokenizer = make_tokenizer()
    silent = make_model(tokenizer, 0)  # for what a team needs of a model beside its words
    team = make_team(dict.fromkeys(TOOLS, silent), tokenizer)
    team.speak_through(Script(tokenizer, careless, random.Random(seed)))
    return team.collect(rows)


def share_solved(rollouts, rows: list[dict]) -> float:
    """Mean reward of rollouts."""
    from trl_teamtr.tasks.service_desk.reward import service_desk_reward

    said = [transcript.as_dicts() for transcript in rollouts.transcripts]
    desks = [transcript.world.team for transcript in rollouts.transcripts]
    rewards = service_desk_reward(said, desks, [row["case"] for row in rows])
    return sum(rewards) / len(rewards)


def share_solved_by_base(base: Path, rows: list[dict]) -> float:
    """Mean reward of a team of two copies of the base, at temperature 1."""
    from transformers import Qwen3ForCausalLM

    model = Qwen3ForCausalLM.from_pretrained(base)
    return share_solved(make_team(dict.fromkeys(TOOLS, model), make_tokenizer()).collect(rows), rows)


def make_demonstrations(rows: list[dict], names: tuple[str, ...], careless: float, seed: int):
    """What agents read and wrote in rollouts of the scripted ones, shuffled. What they wrote is learned."""
    from datasets import Dataset

    rollouts = play(rows, careless, seed)
    found = []
    for view in (view for name in names for view in rollouts.views[name] if view.num_messages):
        own = [token if mask else -100 for token, mask in zip(view.completion_ids, view.mask, strict=True)]
        found.append({"input_ids": view.context, "labels": [-100] * len(view.prompt_ids) + own})
    random.Random(seed).shuffle(found)
    return Dataset.from_list(found)


def save_base(path: Path, rows: list[dict], size: str):
    """Save the base, unless it is there; with random weights for `size="smoke"`."""

    def write(part: Path):
        tokenizer = make_tokenizer()
        model = make_model(tokenizer, 0)
        if size != "smoke":
            demonstrations = make_demonstrations(rows[:SHOWN], tuple(TOOLS), 0.0, seed=0)
            fit_base(model, tokenizer, demonstrations, BASE_STEPS, BATCH)
        model.save_pretrained(part)

    write_whole(path, write)


def save_start(path: Path, base: Path, rows: list[dict], seed: int, size: str):
    """
    Save the models of the user and the assistant of a seed, unless they are there.

    Args:
        path (`Path`): Folder of the team, which has one for each agent.
        base (`Path`): Folder of the base.
        rows (`list[dict]`): Rows to train on.
        seed (`int`): Seed of the demonstrations.
        size (`str`): `"full"`, `"quick"`, or `"smoke"`, which fine-tunes nothing.
    """
    from transformers import Qwen3ForCausalLM

    def write(part: Path):
        tokenizer = make_tokenizer()
        for i, name in enumerate(TOOLS):
            model = Qwen3ForCausalLM.from_pretrained(base)
            if size != "smoke":
                shown = random.Random(seed + i).sample(rows, CARELESS_SHOWN)
                demonstrations = make_demonstrations(shown, (name,), CARELESS, seed + 1000 * (i + 1))
                demonstrations = demonstrations.take(CARELESS_STEPS * BATCH)
                fit(model, tokenizer, demonstrations, CARELESS_STEPS, 5e-4, seed)
            for each in (model, tokenizer):
                each.save_pretrained(part / name)

    write_whole(path, write)
