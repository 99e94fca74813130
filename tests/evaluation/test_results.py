import json
import math

import pytest
from datasets import Dataset

from trl_teamtr import Message
from trl_teamtr.evaluation import EvaluationConfig, format_table, write_episodes
from trl_teamtr.evaluation.results import Episode, is_right, summarize


DATASET = Dataset.from_dict({"prompt": ["first", "second", "third"]})


def talk(*texts):
    return [Message("xyz"[i % 3], text, (2,) * len(text) + (1,)) for i, text in enumerate(texts)]


def make_episodes(rewards, earlier=((0.0,), (1.0,), (1.0,), (0.0,), (0.0,), (0.0,))):
    """Two samples of each of three tasks, each of two messages with 2 and 3 tokens."""
    return [
        Episode(i // 2, i % 2, [talk("a", "bb")], (0, 2), reward, None if said is None else list(said))
        for i, (reward, said) in enumerate(zip(rewards, earlier, strict=True))
    ]


def test_figures_by_hand():
    config = EvaluationConfig(num_samples=2, k=[1, 2])
    result = summarize("team", make_episodes([1.0, 1.0, 0.5, 1.0, 0.0, 0.0]), DATASET, config, seed=0)
    assert result.accuracies == [1.0, 0.5, 0.0] and result.accuracy == 0.5
    assert result.pass_at_k == {1: 0.5, 2: pytest.approx(2 / 3)}
    assert result.reward == pytest.approx(3.5 / 6) and result.tokens == 5
    assert result.coordination == 0.5  # of the second and third episode, the second is right
    assert (result.num_tasks, result.left_out, result.num_samples, result.samples_per_answer) == (3, 0, 2, 1)
    assert result.interval[0] <= 0.5 <= result.interval[1]


def test_threshold_decides_and_rounding_does_not():
    assert is_right(1 - 1e-7, 1.0) and not is_right(0.999, 1.0) and is_right(0.5, 0.5)
    assert not is_right(math.nan, 0.0)
    config = EvaluationConfig(num_samples=2, threshold=0.5)
    assert summarize("team", make_episodes([1.0, 0.5, 0.4, 0, 0, 0]), DATASET, config, 0).accuracy == 1 / 3


def test_tasks_that_no_reward_applies_to_are_left_out():
    config = EvaluationConfig(num_samples=2)
    episodes = make_episodes([1.0, 1.0, math.nan, 1.0, 0.0, 0.0])
    result = summarize("team", episodes, DATASET, config, 0)
    assert (result.num_tasks, result.left_out, result.accuracies) == (2, 1, [1.0, None, 0.0])
    assert result.coordination == 1.0 and len(result.records) == 6 and result.records[2]["reward"] is None
    assert 'Tasks excluded, since no reward applies: {"team": 1}' in format_table([result])
    with pytest.raises(ValueError, match="No task can be judged: .* by protocol 'team'"):
        summarize("team", make_episodes([math.nan] * 6), DATASET, config, 0)


def test_coordination_is_none_where_messages_were_not_judged():
    config = EvaluationConfig(num_samples=2)
    result = summarize("team", make_episodes([1.0] * 6, [None] * 6), DATASET, config, 0)
    assert result.coordination is None and result.accuracy == 1


def test_episode_knows_its_answer_and_its_tokens():
    vote = Episode(0, 0, [talk("a"), talk("bb"), talk("a")], (1, 1), 0.0)
    assert vote.text == "bb" and vote.tokens == 7
    assert Episode(0, 0, [talk("a", "b", "c")], (0, 2), 1.0).text == "b"
    assert Episode(0, 0, [[]], (0, 0), 0.0).text == ""


def test_episodes_are_written_as_json_lines(tmp_path):
    config = EvaluationConfig(num_samples=2)
    result = summarize("team", make_episodes([1.0, 0.0, 0.0, 0.0, 0.0, 0.0]), DATASET, config, 0)
    write_episodes([result, result], tmp_path / "episodes.jsonl")
    lines = (tmp_path / "episodes.jsonl").read_text().splitlines()
    assert len(lines) == 12 and json.loads(lines[3]) == {
        "protocol": "team",
        "task": 1,
        "sample": 1,
        "prompt": "second",
        "agent_prompts": None,
        "answer": "bb",
        "reward": 0.0,
        "right": False,
        "tokens": 5,
        "answered_at": [0, 2],
        "cut_off": False,
        "earlier_rewards": [0.0],
        "transcripts": [[{"name": "x", "content": "a"}, {"name": "y", "content": "bb"}]],
    }
    assert "records" not in result.as_dict() and json.dumps(result.as_dict())


def test_table_is_aligned_and_names_the_oracle():
    config = EvaluationConfig(num_samples=2, k=[1, 2])
    results = [
        summarize(name, make_episodes([1.0, 0.0, 0.0, 0.0, 0.0, 0.0], said), DATASET, config, 0)
        for name, said in (("team", [[1.0]] * 6), ("best_of_n", [[]] * 6))
    ]
    *table, note = format_table(results).splitlines()
    assert len({len(line) for line in table}) == 1 and len(table) == 3
    assert table[0].split() == [
        *("protocol", "samples", "avg@2", "95", "%", "interval", "pass@1", "pass@2"),
        *("reward", "coordination", "tokens/episode"),
    ]
    assert table[1].split()[:3] == ["team", "1", "0.167"] and table[1].split()[-2:] == ["0.167", "5.0"]
    assert table[2].startswith("best_of_n*") and table[2].split()[-2:] == ["-", "5.0"] and "oracle" in note
