"""Any task of reasoning-gym as a dataset, with the task's own scorer as the reward."""

import json
import re

from datasets import Dataset


# What counts as the answer in a message: the last tag, else what follows the last "answer:", else the last number of a
# message whose reference is a number, else the whole message.
TAG = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
LABEL = re.compile(r"answer(?: is)?\s*[:=]\s*(.+)", re.IGNORECASE)
NUMBER = re.compile(r"(?:(?<!\w)-)?\d[\d,]*(?:\.\d+)?")


def extract_answer(text: str, reference: str) -> str:
    """The answer in `text`, to be compared with `reference`."""
    tagged, labelled = TAG.findall(text), LABEL.findall(text)
    text = (tagged or labelled or [text])[-1]
    if NUMBER.fullmatch(reference.strip()) and (numbers := NUMBER.findall(text)):
        number = numbers[0] if labelled and not tagged else numbers[-1]
        return number.replace(",", "")
    return text.strip()


def make_dataset(task: str, size: int, seed: int, **task_kwargs) -> Dataset:
    """
    Rows of a reasoning-gym task: `prompt`, `answer` and `entry` (the task's record as JSON, for its scorer).

    Args:
        task (`str`): Name of the task, e.g. `"chain_sum"`.
        size (`int`): Number of rows.
        seed (`int`): Seed of the generator. Row i depends on `seed + i`, so that neighbouring seeds share rows: take
            held-out rows from the same set (`tasks.loading.hold_out`), not from another seed.
        task_kwargs: Difficulty and other settings of the task.

    Raises:
        `ValueError`: If the task's scorer cannot work with a record that went through JSON.
    """
    import reasoning_gym

    entries = list(reasoning_gym.create_dataset(task, size=size, seed=seed, **task_kwargs))
    rows = Dataset.from_dict(
        {
            "prompt": [[{"role": "user", "content": entry["question"]}] for entry in entries],
            "answer": [str(entry["answer"]) for entry in entries],
            "entry": [json.dumps(entry, default=str) for entry in entries],
        }
    )
    score, first = reasoning_gym.get_score_answer_fn(entries[0]["metadata"]["source_dataset"]), entries[0]
    if score(first["answer"], first) != score(first["answer"], json.loads(rows[0]["entry"])):
        raise ValueError(
            f"The scorer of reasoning-gym's {task!r} needs records that JSON cannot hold. Choose another task."
        )
    return rows


def reasoning_gym_reward(completions: list, answer: list[str], entry: list[str], **kwargs) -> list[float]:
    """Score of the team's answer by the task's own scorer, between 0 and 1."""
    import reasoning_gym

    rewards = []
    for completion, reference, record in zip(completions, answer, entry, strict=True):
        text = completion if isinstance(completion, str) else completion[-1]["content"]
        record = json.loads(record)
        score = reasoning_gym.get_score_answer_fn(record["metadata"]["source_dataset"])
        rewards.append(float(score(answer=extract_answer(text, reference), entry=record)))
    return rewards
