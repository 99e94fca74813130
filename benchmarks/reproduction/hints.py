"""
A task with private hints: each of two members has a table of letters and digits, and a question names a letter of each table. The
first message looks one up, the last has both; the reward is the share of the pairs in it that are right. Nobody has both tables but
a single agent, which is given both of them.
"""

import random
import re
import string
from typing import Any


MEMBERS = ("first", "second")
ENTRIES = 8  # of a table
PAIR = re.compile(r"([A-Z])\s?(\d)")
EXAMPLE = {
    "first": "Table: R5 M2 T9\n\nQuestion: M K\n\nfirst: M2",
    "second": "Table: G4 K7 B1\n\nQuestion: M K\n\nfirst: M2\n\nsecond: M2 K7",
}
ALONE = "Table: R5 M2 T9 G4 K7 B1\n\nQuestion: M K\n\nfirst: M2 K7"


def make_dataset(size: int, seed: int, single: bool):
    """Rows: `prompt`, `agent_prompts` and `pairs`, the two that the question asks for. The same questions for both."""
    from datasets import Dataset

    rng, rows = random.Random(f"hints/{seed}"), []
    for _ in range(size):
        letters = rng.sample(string.ascii_uppercase, 2 * ENTRIES)
        entries = [f"{letter}{rng.randrange(10)}" for letter in letters]
        tables = [entries[:ENTRIES], entries[ENTRIES:]]
        asked = [rng.choice(table) for table in tables]
        question = "Question: " + " ".join(pair[0] for pair in asked)
        if single:
            private = {MEMBERS[0]: f"Table: {' '.join(entries)}\n\n{question}\n\n{MEMBERS[0]}:"}
        else:
            private = {
                name: f"Table: {' '.join(table)}\n\n{question}" for name, table in zip(MEMBERS, tables, strict=True)
            }
        rows.append({"prompt": "Look the letters up.", "agent_prompts": private, "pairs": asked})
    return Dataset.from_list(rows)


def score_pairs(completions: list[str], pairs: list[list[str]], **kwargs) -> list[float]:
    """The share of the asked pairs that the message has; of two for one letter the first counts."""
    rewards = []
    for text, asked in zip(completions, pairs, strict=True):
        said = dict(reversed(PAIR.findall(text)))
        rewards.append(sum(said.get(pair[0]) == pair[1] for pair in asked) / len(asked))
    return rewards


def find_parts(texts: list[str], pairs: list[str]) -> dict[str, bool]:
    """Which of the two asked pairs is in which of the messages of a conversation, by the name of message and pair."""
    return {
        f"message {place}, pair {number}": score_pairs([text], [[pair]]) == [1.0]
        for place, text in enumerate(texts, start=1)
        for number, pair in enumerate(pairs, start=1)
    }


def demonstrate(row: dict[str, Any], name: str, single: bool) -> dict[str, str]:
    """A conversation in which all pairs are right, for member `name`: `prompt` and `completion`."""
    private, (own, _) = row["agent_prompts"][name], row["pairs"]
    if single:
        blocks = [ALONE, row["prompt"], private]
    else:
        heard = [f"{MEMBERS[0]}: {own}"] if name == MEMBERS[1] else []
        blocks = [EXAMPLE[name], row["prompt"], private, *heard, f"{name}:"]
    said = own if name == MEMBERS[0] and not single else " ".join(row["pairs"])
    return {"prompt": "\n\n".join(blocks), "completion": f" {said}"}
