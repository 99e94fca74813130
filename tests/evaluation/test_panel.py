import pytest
from datasets import Dataset
from tiny import PROMPTS, make_config, make_team
from vllm_teams import in_process

from trl_teamtr import Agent, Team
from trl_teamtr.agents.settings import SpeakingSettings
from trl_teamtr.evaluation.checks import check_launch
from trl_teamtr.evaluation.panel import Panel, share_prompts
from trl_teamtr.returns.scorer import RewardScorer


def letters(completions, **kwargs):
    return [completion.count("a") / 4 for completion in completions]


async def length(completions, prompts, **kwargs):
    return [None if prompt == "u" else float(len(c)) for c, prompt in zip(completions, prompts, strict=True)]


def make_panel(folder, team, rewards=(letters,), dataset=None, **fields):
    dataset = Dataset.from_dict({"prompt": PROMPTS}) if dataset is None else dataset
    args = make_config(folder / "in", **fields)
    team = Team.from_agents(team, SpeakingSettings.of(args))
    return Panel(team, dataset, RewardScorer(rewards, team.accelerator, weights=args.reward_weights), args)


def ids(conversations):
    return [[(message.agent, message.ids) for message in messages] for messages in conversations]


def test_every_task_gets_a_conversation_in_its_place(tmp_path):
    team = make_team(2, size=4, seed=6)
    panel = make_panel(tmp_path, team, per_device_eval_batch_size=3, top_k=1, max_completion_length=3)
    tasks = [0, 0, 1, 2, 3, 4, 5, 6, 7, 7]
    found = ids(panel.play(tasks, "team")[0])
    assert [[name for name, _ in messages] for messages in found] == [["x", "y"]] * 10
    alone = {task: ids(panel.play([task], "team")[0])[0] for task in set(tasks)}
    assert found == [alone[task] for task in tasks]  # greedy, and so a function of the task
    assert len({str(messages) for messages in found}) == 3


def test_what_is_written_is_a_function_of_seed_and_purpose(tmp_path):
    team, tasks = make_team(2), list(range(8)) * 4
    panel = make_panel(tmp_path, team)
    first, again, other = (ids(panel.play(tasks, purpose)[0]) for purpose in ("team", "team", "debate"))
    assert first == again != other
    assert ids(make_panel(tmp_path, team).play(tasks, "team")[0]) == first
    assert ids(make_panel(tmp_path, team, seed=7).play(tasks, "team")[0]) != first


def test_models_speak_in_evaluation_mode_and_are_left_in_theirs(tmp_path):
    panel = make_panel(tmp_path, make_team(2))
    speaker, models, modes = panel.team.speakers[1], [each.policy.model for each in panel.team.speakers], []
    models[0].train()
    begin = speaker.begin
    speaker.begin = lambda *args: modes.append([model.training for model in models]) or begin(*args)
    panel.play([0], "team")
    assert modes == [[False, False]] and models[0].training


def test_score_is_the_weighted_sum_of_sync_and_async_rewards(tmp_path):
    rows = Dataset.from_dict({"prompt": ["a", "u"]})
    panel = make_panel(tmp_path, make_team(1), [letters, length], rows, reward_weights=[2.0, 10.0])
    conversation = panel.play([0], "team")[0][0]
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
    first, second = panel.play([0], "team")[0][0]
    assert panel.score([(0, [first])]) == [1.0]
    said = {"role": "assistant", "name": "x", "content": first.text}
    assert seen == [([prompt], [[said]], [list(first.ids)], [[said]], [3])]


def test_agent_that_is_alone_reads_all_private_prompts():
    rows = [{"prompt": "a", "agent_prompts": {"x": "1", "y": "2"}}, {"prompt": "a", "agent_prompts": {"x": "3"}}]
    dataset = Dataset.from_list(rows)
    shared = share_prompts(dataset, [Agent("z", "Z")])
    assert shared["agent_prompts"][:] == [{"z": "x: 1\n\ny: 2"}, {"z": "x: 3"}]
    assert share_prompts(dataset, [Agent("x", "X")])["agent_prompts"][:] == [{"x": "x: 1\n\ny: 2"}, {"x": "3"}]
    assert share_prompts(dataset, [Agent("x", "X"), Agent("y", "Y")]) is dataset
    plain = dataset.remove_columns("agent_prompts")
    assert share_prompts(plain, [Agent("z", "Z")]) is plain


def test_deepspeed_is_refused(tmp_path):
    args = make_config(tmp_path)
    args.deepspeed_plugin = object()
    with pytest.raises(ValueError, match="cannot be launched with DeepSpeed"):
        check_launch(args)


def test_vllm_in_this_process_is_refused(tmp_path):
    with pytest.raises(ValueError, match="`vllm_mode='colocate'` is of a training.*`vllm_mode='server'`"):
        check_launch(make_config(tmp_path, **in_process()))
