"""
The models that benchmarks/guess_number.py starts from: they know the rules of guess-a-number, and play it badly.

One base, the same for all seeds, learns three parts from demonstrations, with TRL's `SFTTrainer`: `a` says its counts; `b`
reads them and says the number; who is alone says a number that fits its own hints. For each seed each agent is then fine-tuned
on demonstrations of its part in which it is careless: `a` says other counts half of the time, `b` any number four times of ten.
So what the start lacks is the habit, not the knowledge. No demonstration is of a held-out task.
"""

import random
from pathlib import Path

from warm_start import fit_base, write_whole

from trl_teamtr.cli.link_team import fit
from trl_teamtr.conversation.rendering import add_to_last_user_turn
from trl_teamtr.tasks.guess_number.rules import Hint, all_numbers, candidates
from trl_teamtr.tasks.link import make_model, make_tokenizer


LENGTH, ALPHABET, GUESSES = 2, "0123", 2
TASK = {"length": LENGTH, "alphabet": ALPHABET, "num_guesses": GUESSES, "style": "terse"}
NUMBERS = all_numbers(LENGTH, ALPHABET)
PARTS = ("a", "b", "lone a", "lone b")
CARELESS = {"a": 0.5, "b": 0.4, "lone a": 0.4, "lone b": 0.4}
WEIGHTS = {"a": 1, "b": 4, "lone a": 1, "lone b": 1}  # b's part is the hardest
BATCH, BASE_STEPS, CARELESS_STEPS = 64, 2000, 80


def read_hints(text: str) -> list[Hint]:
    """The hints that a terse private prompt tells."""
    return [Hint(word[:-3], "AB".index(word[-1]), int(word[-2])) for word in text.split()]


def say_counts(hints: list[Hint]) -> str:
    """What `a` says: its counts, in the order of the guesses."""
    return "".join(str(hint.digits) for hint in hints)


def understand(message: str, hints: list[Hint]) -> list[Hint]:
    """The hints of `a` as its message tells them, of the same guesses as one's own."""
    return [hint._replace(kind=1 - hint.kind, digits=int(count)) for hint, count in zip(hints, message, strict=True)]


def act(part: str, row: dict, heard: str, careless: bool, rng: random.Random) -> str:
    """
    A message of one part of the game.

    Args:
        part (`str`): One of `PARTS`.
        row (`dict`): The row.
        heard (`str`): What `a` said, for `b`.
        careless (`bool`): Whether it plays without looking.
        rng (`random.Random`): What it draws from.
    """
    own = read_hints(row["agent_prompts"][part[-1]])
    if part == "a":
        return "".join(rng.choice("012") for _ in own) if careless else say_counts(own)
    hints = own + (understand(heard, own) if part == "b" else [])
    return rng.choice(NUMBERS if careless else candidates(NUMBERS, hints) or NUMBERS)


def make_demonstrations(rows: list[dict], parts: tuple[str, ...], size: int, seed: int, noisy: bool):
    """Prompts and completions of parts of the game, as an agent reads and writes them."""
    from datasets import Dataset

    rng = random.Random(seed)
    found: dict[str, list] = {"prompt": [], "completion": []}
    for _ in range(size):
        (part,), row = rng.choices(parts, [WEIGHTS[each] for each in parts]), rng.choice(rows)
        heard = act("a", row, "", noisy and rng.random() < CARELESS["a"], rng)
        said = act(part, row, heard, noisy and rng.random() < CARELESS[part], rng)
        turns = [dict(turn) for turn in row["prompt"]]
        add_to_last_user_turn(turns, [row["agent_prompts"][part[-1]], *([f"a: {heard}"] if part == "b" else [])])
        found["prompt"].append(turns)
        found["completion"].append([{"role": "assistant", "content": said}])
    return Dataset.from_dict(found)


def save_base(path: Path, rows: list[dict], size: str):
    """Save the base, unless it is there; with random weights for `size="smoke"`."""

    def write(part: Path):
        tokenizer = make_tokenizer()
        model = make_model(tokenizer, 0)
        if size != "smoke":
            demonstrations = make_demonstrations(rows, PARTS, 16000, seed=0, noisy=False)
            fit_base(model, tokenizer, demonstrations, BASE_STEPS, BATCH)
        model.save_pretrained(part)

    write_whole(path, write)


def share_solved(base: Path, rows: list[dict]) -> float:
    """Share of `rows` whose number the base says as `b`, greedily, where `a` says its counts right."""
    import torch
    from transformers import Qwen3ForCausalLM

    tokenizer, model = make_tokenizer(), Qwen3ForCausalLM.from_pretrained(base)
    views = []
    for row in rows:
        turns = [dict(turn) for turn in row["prompt"]]
        said = say_counts(read_hints(row["agent_prompts"]["a"]))
        add_to_last_user_turn(turns, [row["agent_prompts"]["b"], f"a: {said}"])
        views.append(tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False))
    ids = torch.tensor(views)  # all of one length
    written = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=LENGTH)
    answers = tokenizer.batch_decode(written[:, ids.size(1) :])
    return sum(answer == row["secret"] for answer, row in zip(answers, rows, strict=True)) / len(rows)


def save_start(path: Path, base: Path, rows: list[dict], seed: int, size: str):
    """
    Save the models of `a` and `b` of a seed, unless they are there.

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
        for i, (name, own) in enumerate((("a", PARTS[:1]), ("b", PARTS[1:]))):
            model = Qwen3ForCausalLM.from_pretrained(base)
            if size != "smoke":
                count = CARELESS_STEPS * BATCH
                demonstrations = make_demonstrations(rows, own, count, seed + 1000 * (i + 1), noisy=True)
                fit(model, tokenizer, demonstrations, CARELESS_STEPS, 5e-4, seed)
            for each in (model, tokenizer):
                each.save_pretrained(part / name)

    write_whole(path, write)
