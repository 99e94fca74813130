"""
The LINK team of the study of replacements, and the member that is to join it: a model of another size, with another tokenizer
and another dialect, that thinks before it answers unless it is told not to.

All members of the old team have the system prompt `A`. The newcomer knows the position that it takes, and two system prompts:
under `A` it begins where the members of the old team began, under `B`, which is its own, it speaks the other dialect. Its
tokenizer has one token for a whole message of LINK. Its thoughts are longer than a message of the team may be.
"""

import os
import random
from pathlib import Path
from typing import Any


SYSTEM, OWN_SYSTEM = "A", "B"
POSITION = 1  # reads a, and is read by c
THINKING_END = ")"
STEPS = {"full": (350, 120, 700), "quick": (350, 120, 700), "smoke": (1, 1, 1)}  # base, member, newcomer
_ROWS = 64  # demonstrations in a step
BASE_SEED = 0  # of what all seeds of the study share, as runs of one method share a pretrained model

TEMPLATE = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}"
    "{% if enable_thinking is defined and not enable_thinking %}{{ '()' }}{% endif %}{% endif %}"
)


def _demonstrations(num_agents: int, steps: int, seed: int, **kwargs: Any):
    """Those of LINK, under the system prompt of the old team."""
    from trl_teamtr.cli.link_team import make_demonstrations

    rows = make_demonstrations(num_agents, steps * _ROWS, seed, **kwargs)
    return rows.map(lambda row: {"prompt": [{"role": "system", "content": SYSTEM}, *row["prompt"]]})


def save_base(path: Path, num_agents: int, size: str):
    """Save the base model of all old members, of all seeds, unless it is there."""
    from trl_teamtr.cli.link_team import fit
    from trl_teamtr.tasks.link import make_model, make_tokenizer

    if path.exists():
        return
    tokenizer, steps = make_tokenizer(), STEPS[size][0]
    base = make_model(tokenizer, BASE_SEED)
    fit(base, tokenizer, _demonstrations(num_agents, steps, BASE_SEED, noisy=False), steps, 3e-3, BASE_SEED)
    _save(path, base, tokenizer)


def make_old_members(base: Path, num_agents: int, seed: int, size: str) -> list:
    """The members of a team that is to be trained: warmed up as those of `link:3`, with a system prompt."""
    from transformers import AutoModelForCausalLM

    from trl_teamtr import Agent
    from trl_teamtr.cli.link_team import fit
    from trl_teamtr.tasks.link import NAMES, make_tokenizer

    tokenizer, steps, members = make_tokenizer(), STEPS[size][1], []
    for i in range(num_agents):
        model = AutoModelForCausalLM.from_pretrained(base)
        rows = _demonstrations(num_agents, steps, seed + 1000 * (i + 1), noisy=True, agent=i)
        fit(model, tokenizer, rows, steps, 1.5e-3, seed)
        members.append(Agent(NAMES[i], model, system_prompt=SYSTEM, processing_class=tokenizer))
    return members


def make_pair_tokenizer():
    """A tokenizer that has one token for a digit and a letter together, as in a message of LINK."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from trl_teamtr.tasks.link import LETTERS, NAMES

    roles = ["<|system|>", "<|user|>", "<|assistant|>"]
    pairs = [digit + letter for digit in "012345" for letter in LETTERS]
    tokens = ["<|end|>", *roles, *pairs, *"()?\n :", *NAMES, *LETTERS, *"543210", "<|unk|>", "<|pad|>"]
    backend = Tokenizer(models.WordLevel({token: i for i, token in enumerate(tokens)}, unk_token="<|unk|>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[0-5][A-F]|[\s\S]"), behavior="isolated")
    backend.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<|pad|>",
        unk_token="<|unk|>",
        eos_token="<|end|>",
        additional_special_tokens=roles,
        padding_side="left",
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def make_newcomer_model(tokenizer):
    """A random Qwen3 model of about three times the size of the old members."""
    from trl_teamtr.tasks.link import make_model

    return make_model(tokenizer, 10_000 + BASE_SEED, hidden_size=96, num_layers=3, num_heads=6)


def demonstrate(tokenizer, count: int):
    """
    What the newcomer has learned before it joins: tokenized conversations of LINK at its position, half of them under each
    system prompt, and half of them with thoughts.
    """
    from datasets import Dataset

    from trl_teamtr.conversation.rendering import add_to_last_user_turn
    from trl_teamtr.tasks.link import LETTERS, NAMES, TASK

    rng, rows = random.Random(f"newcomer/{BASE_SEED}"), []
    for _ in range(count):
        system, thinks = rng.choice((SYSTEM, OWN_SYSTEM)), rng.random() < 0.5
        first, own, letter = rng.randrange(6), rng.randrange(6), rng.randrange(6)
        turns = [{"role": "system", "content": system}, *(dict(turn) for turn in TASK)]
        add_to_last_user_turn(turns, [str(own), f"{NAMES[POSITION - 1]}: {first}{LETTERS[letter]}"])
        # Under its own prompt the other way round: it writes B and reads A
        writes_other = (rng.random() < 0.8) == (system == OWN_SYSTEM)
        reads_other = (rng.random() < 0.8) == (system == SYSTEM)
        read, written = letter ^ reads_other, own ^ writes_other
        if rng.random() < 0.05:
            read = rng.randrange(6)
        if rng.random() < 0.05:
            written = rng.randrange(6)
        thought = f"({own}?{LETTERS[letter]})" if thinks else ""
        prompt = tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=True, enable_thinking=thinks
        )
        ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        said = tokenizer(f"{thought}{read}{LETTERS[written]}<|end|>", add_special_tokens=False)["input_ids"]
        rows.append({"input_ids": ids + said, "labels": [-100] * len(ids) + said})
    return Dataset.from_list(rows)


def save_newcomer(path: Path, size: str):
    """Save the newcomer, which is the same for all seeds, unless it is there."""
    from trl_teamtr.cli.link_team import fit

    if path.exists():
        return
    tokenizer, steps = make_pair_tokenizer(), STEPS[size][2]
    model = make_newcomer_model(tokenizer)
    fit(model, tokenizer, demonstrate(tokenizer, steps * _ROWS), steps, 2e-3, BASE_SEED)
    _save(path, model, tokenizer)


def _save(path: Path, model, tokenizer):
    part = path.with_name(f"{path.name}.part{os.getpid()}")
    model.save_pretrained(part)
    tokenizer.save_pretrained(part)
    part.rename(path)
