import pytest
import torch
from datasets import Dataset
from tiny import PROMPTS, make_config, make_team
from transformers import Qwen3Config, Qwen3ForSequenceClassification

from trl_teamtr import Agent
from trl_teamtr.evaluation.panel import Panel, evaluation_args, loaded_rewards, share_prompts


def letters(completions, **kwargs):
    return [completion.count("a") / 4 for completion in completions]


async def length(completions, prompts, **kwargs):
    return [None if prompt == "u" else float(len(c)) for c, prompt in zip(completions, prompts, strict=True)]


def make_panel(folder, team, rewards=(letters,), dataset=None, **fields):
    dataset = Dataset.from_dict({"prompt": PROMPTS}) if dataset is None else dataset
    return Panel(team, dataset, list(rewards), evaluation_args(make_config(folder / "in", **fields), str(folder)))


def ids(conversations):
    return [[(message.agent, message.ids) for message in messages] for messages in conversations]


def test_every_task_gets_a_conversation_in_its_place(tmp_path):
    team = make_team(2, size=4, seed=6)
    panel = make_panel(tmp_path, team, per_device_eval_batch_size=3, top_k=1, max_completion_length=3)
    tasks = [0, 0, 1, 2, 3, 4, 5, 6, 7, 7]
    found = ids(panel.write(tasks, "team"))
    assert [[name for name, _ in messages] for messages in found] == [["x", "y"]] * 10
    alone = {task: ids(panel.write([task], "team"))[0] for task in set(tasks)}
    assert found == [alone[task] for task in tasks]  # greedy, and so a function of the task
    assert len({str(messages) for messages in found}) == 3


def test_what_is_written_is_a_function_of_seed_and_purpose(tmp_path):
    team, tasks = make_team(2), list(range(8)) * 4
    panel = make_panel(tmp_path, team)
    first, again, other = (ids(panel.write(tasks, purpose)) for purpose in ("team", "team", "debate"))
    assert first == again != other
    assert ids(make_panel(tmp_path, team).write(tasks, "team")) == first
    assert ids(make_panel(tmp_path, team, seed=7).write(tasks, "team")) != first


def test_models_speak_in_evaluation_mode_and_are_left_in_theirs(tmp_path):
    panel = make_panel(tmp_path, make_team(2))
    speaker, modes = panel.trainer.members[1], []
    panel.trainer.model.train()
    speak = speaker.speak
    speaker.speak = lambda *args: modes.append([m.model.training for m in panel.trainer.members]) or speak(*args)
    panel.write([0], "team")
    assert modes == [[False, False]] and panel.trainer.model.training


def test_score_is_the_weighted_sum_of_sync_and_async_rewards(tmp_path):
    rows = Dataset.from_dict({"prompt": ["a", "u"]})
    panel = make_panel(tmp_path, make_team(1), [letters, length], rows, reward_weights=[2.0, 10.0])
    conversation = panel.write([0], "team")[0]
    text = conversation[-1].text
    expected = 2 * text.count("a") / 4
    answers = [(0, conversation), (1, conversation), (0, [])]
    assert panel.score(answers) == pytest.approx([expected + 10 * len(text), expected, 0.0])
    assert panel.score([]) == []


def test_score_is_nan_where_no_reward_applies(tmp_path):
    panel = make_panel(tmp_path, make_team(1), [length], Dataset.from_dict({"prompt": ["a", "u"]}))
    first, second = panel.score([(0, []), (1, [])])
    assert first == 0 and second != second


def test_rewards_see_the_columns_and_the_conversation_up_to_the_answer(tmp_path):
    seen = []

    def reward(prompts, completions, completion_ids, transcripts, level, trainer_state, **kwargs):
        seen.append((prompts, completions, completion_ids, transcripts, level))
        return [1.0] * len(prompts)

    prompt = [{"role": "user", "content": "a"}]
    rows = Dataset.from_dict({"prompt": [prompt], "level": [3]})
    team = make_team(2)
    team[0].processing_class.chat_template = "{% for m in messages %}{{ m['content'] }}.{% endfor %}"
    panel = make_panel(tmp_path, team, [reward], rows)
    first, second = panel.write([0], "team")[0]
    assert panel.score([(0, [first])]) == [1.0]
    said = {"role": "assistant", "name": "x", "content": first.text}
    assert seen == [([prompt], [[said]], [list(first.ids)], [[said]], [3])]


def test_reward_models_are_loaded_once(tmp_path):
    config = Qwen3Config(
        vocab_size=3, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, num_labels=1
    )
    config.num_key_value_heads, config.head_dim, config.pad_token_id = 1, 8, 1
    Qwen3ForSequenceClassification(config).save_pretrained(tmp_path / "reward")
    team = make_team(1)
    team[0].processing_class.save_pretrained(tmp_path / "reward")
    given = [letters, str(tmp_path / "reward")]
    panel = make_panel(tmp_path, team, given)
    rewards = loaded_rewards(given, panel)
    assert rewards[0] is letters and isinstance(rewards[1], torch.nn.Module) and isinstance(given[1], str)
    again = make_panel(tmp_path, team, rewards)
    assert again.trainer.reward_funcs[1] is rewards[1]
    assert again.score([(0, [])]) == panel.score([(0, [])])


def test_training_only_settings_do_not_matter(tmp_path):
    """Each of them would have been refused, or loaded a reference model, for a training."""
    fields = {"top_p": 0.9, "beta": 0.1, "num_agents": 5, "reward_weights": [1.0]}
    fields |= {"monitor_fraction": 0.25, "log_certificate": True, "log_occupancy": True}
    args = make_config(tmp_path / "in", **fields)
    own = evaluation_args(args, str(tmp_path / "own"))
    team = make_team(2, trainable=False, trust_region_radius=0.1)
    panel = Panel(team, Dataset.from_dict({"prompt": ["a"]}), [letters], own)
    assert panel.trainer.ref_model is None and panel.trainer.top_p == 0.9
    assert [member.radius for member in panel.trainer.members] == [None, None]
    assert args.num_agents == 5 and args.beta == 0.1 and args.output_dir == str(tmp_path / "in")
    assert not (tmp_path / "in").exists()


def test_prompt_that_is_too_long_is_refused_by_the_row(tmp_path):
    rows = Dataset.from_dict({"prompt": ["a", "a" * 200]})
    with pytest.raises(ValueError, match="row 1 of the evaluation dataset takes .* view of agent 'x', which has room"):
        make_panel(tmp_path, make_team(1), dataset=rows)


def test_agent_that_is_alone_reads_all_private_prompts():
    rows = [{"prompt": "a", "agent_prompts": {"x": "1", "y": "2"}}, {"prompt": "a", "agent_prompts": {"x": "3"}}]
    dataset = Dataset.from_list(rows)
    shared = share_prompts(dataset, [Agent("z", "Z")])
    assert shared["agent_prompts"][:] == [{"z": "x: 1\n\ny: 2"}, {"z": "x: 3"}]
    assert share_prompts(dataset, [Agent("x", "X")])["agent_prompts"][:] == [{"x": "x: 1\n\ny: 2"}, {"x": "3"}]
    assert share_prompts(dataset, [Agent("x", "X"), Agent("y", "Y")]) is dataset
    plain = dataset.remove_columns("agent_prompts")
    assert share_prompts(plain, [Agent("z", "Z")]) is plain


def test_deepspeed_is_refused(tmp_path, monkeypatch):
    args = make_config(tmp_path)
    args.deepspeed_plugin = object()
    with pytest.raises(ValueError, match="cannot be launched with DeepSpeed"):
        evaluation_args(args, str(tmp_path))
