"""Agents that say what they are told, so that the right figures can be written down."""

import pytest
from datasets import Dataset
from tiny import make_config

from trl_teamtr import Message
from trl_teamtr.evaluation import EvaluationConfig, evaluate_protocols
from trl_teamtr.rollouts import turn_loop


def say(monkeypatch: pytest.MonkeyPatch, **lines: list[list[str]]):
    """For each agent what it says at each of its turns: one text per row. A text of n characters has n + 1 tokens."""
    left = {name: list(turns) for name, turns in lines.items()}

    def speak(begun):
        name, asked = begun.speaker.name, len(begun.requests)
        texts = left[name].pop(0) if asked else []
        assert len(texts) == asked, f"{name} was asked {asked} times, and told {texts}"
        return [Message(name, text, (2,) * len(text) + (1,)) for text in texts]

    monkeypatch.setattr(turn_loop, "speak_together", lambda turn: [speak(begun) for begun in turn])


def is_answer(completions, answer, **kwargs):
    """1 for the answer, 0 for another one, and `None` where there is none."""
    return [None if a is None else float(c == a) for c, a in zip(completions, answer, strict=True)]


def evaluate(folder, team, *answers, reward=is_answer, model=None, fields=None, **settings):
    """Evaluate on one task for each of `answers`."""
    dataset = Dataset.from_dict({"prompt": ["a"] * len(answers), "answer": list(answers)})
    config = EvaluationConfig(**{"debate_prompt": None, "judge_prompt": None} | settings)
    args = make_config(folder / "out", **(fields or {}))
    return evaluate_protocols(team, reward, dataset, args, config, model=model)
