import functools
import json
import os
import warnings

import pytest
from datasets import Dataset
from peft import LoraConfig
from scripted import evaluate, is_answer, say
from tiny import PROMPTS, make_config, make_model, make_team, make_tokenizer, make_trainer

from trl_teamtr import Agent, TeamTRConfig, TeamTRTrainer
from trl_teamtr.agents import resolving
from trl_teamtr.evaluation import PROTOCOLS, EvaluationConfig, evaluate_protocols, format_table
from trl_teamtr.evaluation import evaluate as evaluate_module
from trl_teamtr.tasks import link
from trl_teamtr.tasks.reasoning_gym import reasoning_gym_reward


# Protocols, with agents that say what they are told


def test_answer_of_the_team_is_its_last_message(tmp_path, monkeypatch):
    say(monkeypatch, x=[["4", "4", "5"]], y=[["4", "5", "4"]])
    result = evaluate(tmp_path, make_team(2), "4", "4", "4")["team"]
    assert result.accuracies == [1, 0, 1] and result.tokens == 4
    assert result.coordination == 0.5  # said before in the first two, kept in one
    assert [record["earlier_rewards"] for record in result.records] == [[1.0], [1.0], [0.0]]


def test_majority_decides_and_the_oracle_knows_better(tmp_path, monkeypatch):
    # The first of each task's three samples, then the two others of each
    say(monkeypatch, y=[["5", "4", "7"], ["4", "4", "5", "5", "6", "4"]])
    protocols = ["single", "best_of_n", "majority"]
    results = evaluate(tmp_path, make_team(2), "4", "4", "4", protocols=protocols, budget_samples=3)
    assert results["single"].accuracies == [0, 1, 0]
    assert results["majority"].accuracies == [1, 0, 0]
    assert [record["answer"] for record in results["majority"].records] == ["4", "5", "7"]  # a tie: the first
    assert results["best_of_n"].accuracies == [1, 1, 1]
    assert [result.tokens for result in results.values()] == [2, 6, 6]
    assert all(result.coordination is None for result in results.values())


def test_vote_counts_extracted_answers(tmp_path, monkeypatch):
    say(monkeypatch, y=[["4"], ["so\n 5 ", "5"]])
    result = evaluate(tmp_path, make_team(2), "4", protocols=["majority"], budget_samples=3)["majority"]
    assert result.records[0]["answer"] == "so\n 5 " and result.records[0]["answered_at"] == [1, 1]


def test_last_round_of_a_debate_counts(tmp_path, monkeypatch):
    say(monkeypatch, x=[["4", "5"], ["5", "4"]], y=[["4", "5"], ["4", "5"]], z=[["4", "5"], ["5", "4"]])
    result = evaluate(tmp_path, make_team(3), "4", "4", protocols=["debate"])["debate"]
    assert result.accuracies == [0, 1] and [record["answered_at"] for record in result.records] == [[0, 4], [0, 4]]
    assert result.coordination == 0 and result.tokens == 12
    assert result.records[0]["earlier_rewards"] == [1, 1, 1]


@pytest.mark.parametrize("round_", [["4", "5", "5"], ["5", "4", "5"], ["5", "5", "4"]], ids="".join)
def test_coordination_of_a_debate_is_with_the_rounds_before_its_last(tmp_path, monkeypatch, round_):
    """Whoever of the last round speaks first."""
    first, second = zip("565", round_, strict=True), zip("545", round_, strict=True)
    for turns, expected in ((first, None), (second, 0)):
        say(monkeypatch, **{name: [[a], [b]] for name, (a, b) in zip("xyz", turns, strict=True)})
        result = evaluate(tmp_path, make_team(3), "4", protocols=["debate"])["debate"]
        assert result.coordination == expected and len(result.records[0]["earlier_rewards"]) == 3


def test_reward_of_conversations_judges_the_whole_debate(tmp_path, monkeypatch):
    def reward(transcripts, **kwargs):
        return [float(len(messages) == 2) for messages in transcripts]

    say(monkeypatch, x=[["4"]], y=[["5"]])
    settings = {"protocols": ["debate"], "debate_rounds": 1, "reward": reward}
    assert evaluate(tmp_path, make_team(2), "4", **settings)["debate"].accuracy == 1


def test_several_rewards_need_a_threshold(tmp_path, monkeypatch):
    def polite(completions, **kwargs):
        return [1.0] * len(completions)

    with pytest.raises(ValueError, match="There are 2 reward functions, and an answer .* Set `threshold`"):
        evaluate(tmp_path, make_team(1), "4", reward=[is_answer, polite])
    say(monkeypatch, x=[["5", "4"]])
    result = evaluate(tmp_path, make_team(1), "4", "4", reward=[is_answer, polite], threshold=2.0)["team"]
    assert result.accuracies == [0, 1]


def test_accuracies_are_one_per_task_whatever_is_left_out(tmp_path, monkeypatch):
    say(monkeypatch, x=[["5", "4", "4"]])
    result = evaluate(tmp_path, make_team(1), "4", None, "4")["team"]
    assert result.accuracies == [0, None, 1] and result.accuracy == 0.5 and result.left_out == 1


def test_conversations_that_end_early_and_answers_that_are_cut_off_are_counted(tmp_path):
    results = run(
        tmp_path, make_team(2), fields={"max_context_length": 12, "num_rounds": 4, "max_completion_length": 1}
    )
    share = sum(len(record["transcripts"][0]) < 8 for record in results["team"].records) / 32
    assert 0 < share == results["team"].ended_for_length
    cut_off = [record["cut_off"] for record in results["team"].records]
    assert 0 < results["team"].cut_off == sum(cut_off) / 32
    table = format_table(list(results.values()))
    assert "ended early because a context was full: {" in table and "truncated by `max_completion_length`: {" in table


def test_judge_speaks_last_and_decides(tmp_path, monkeypatch):
    say(monkeypatch, x=[["5"]], y=[["5"]], judge=[["4"]])
    result = evaluate(tmp_path, make_team(2), "4", protocols=["debate_judge"], debate_rounds=1)["debate_judge"]
    assert result.accuracy == 1 and result.tokens == 6
    assert [message["name"] for message in result.records[0]["transcripts"][0]] == ["x", "y", "judge"]


def test_role_play_is_one_pass_whatever_the_team_does(tmp_path, monkeypatch):
    say(monkeypatch, x=[["5"], ["5"], ["4"]], y=[["4"], ["6"], ["5"]])
    protocols, fields = ["role_play", "team"], {"num_rounds": 2}
    results = evaluate(tmp_path, make_team(2), "4", protocols=protocols, role_prompts=["a", "u"], fields=fields)
    assert list(results) == ["team", "role_play"]
    assert [len(result.records[0]["transcripts"][0]) for result in results.values()] == [4, 2]
    assert [result.records[0]["answer"] for result in results.values()] == ["6", "5"]


def test_token_budget_is_the_teams(tmp_path, monkeypatch):
    say(monkeypatch, x=[["44"]], y=[["4444"], ["4"], ["5"] * 3])  # 8 tokens, and 2: four samples
    results = evaluate(tmp_path, make_team(2), "4", protocols=["team", "single", "majority", "best_of_n"])
    assert [result.samples_per_answer for result in results.values()] == [1, 1, 4, 4]
    assert [result.tokens for result in results.values()] == [8, 2, 8, 8]


def test_answers_that_no_reward_applies_to_are_never_the_best(tmp_path, monkeypatch):
    def reward(completions, **kwargs):
        return [None if completion == "u" else 0.0 for completion in completions]

    say(monkeypatch, x=[["u"], ["4"]])
    result = evaluate(tmp_path, make_team(1), "4", reward=reward, protocols=["best_of_n"], budget_samples=2)
    assert result["best_of_n"].records[0]["answer"] == "4" and result["best_of_n"].left_out == 0


# With the models' own words


def has_a(completions, **kwargs):
    return [float("a" in completion) for completion in completions]


def run(tmp_path, team, reward=has_a, model=None, dataset=None, fields=None, **settings):
    dataset = Dataset.from_dict({"prompt": PROMPTS}) if dataset is None else dataset
    short = {"debate_prompt": "u", "judge_prompt": "b", "role_prompts": None, "num_samples": 4}
    args = make_config(tmp_path / "out", **(fields or {}))
    return evaluate_protocols(team, reward, dataset, args, EvaluationConfig(**short | settings), model=model)


@pytest.fixture(scope="module")
def all_protocols(tmp_path_factory):
    folder = tmp_path_factory.mktemp("all")
    team = make_team(3, system_prompt="u")
    return team, folder, run(folder, team, protocols=list(PROTOCOLS), k=[1, 2, 4])


def test_every_protocol_has_its_figures(all_protocols):
    _, folder, results = all_protocols
    assert list(results) == list(PROTOCOLS) and os.listdir(folder) == []
    for result in results.values():
        assert result.num_tasks == 8 and len(result.records) == 32 and result.left_out == 0
        assert result.pass_at_k[1] == pytest.approx(result.accuracy) and result.accuracy == result.reward
        assert result.pass_at_k[1] <= result.pass_at_k[2] <= result.pass_at_k[4]
        assert result.interval[0] <= result.accuracy <= result.interval[1]
        assert result.tokens == sum(record["tokens"] for record in result.records) / 32
        for record in result.records:
            assert record["reward"] == float("a" in record["answer"])


def test_same_seed_gives_the_same_and_protocols_do_not_depend_on_each_other(all_protocols):
    team, folder, results = all_protocols
    alone = run(folder, team, protocols=["debate", "single"], k=[1, 2, 4])
    assert alone["debate"].records == results["debate"].records
    assert alone["single"].as_dict() == results["single"].as_dict()
    other = run(folder, team, protocols=["debate"], fields={"seed": 1})
    assert other["debate"].records != results["debate"].records


def test_choices_are_made_from_the_same_samples(all_protocols):
    _, _, results = all_protocols
    for single, best, majority in zip(*(results[name].records for name in PROTOCOLS[1:4]), strict=True):
        assert single["transcripts"][0] == best["transcripts"][0] and best["transcripts"] == majority["transcripts"]
        assert best["reward"] >= max(single["reward"], majority["reward"])
    assert results["best_of_n"].accuracy > results["single"].accuracy


def test_budgets_are_about_equal(all_protocols):
    _, _, results = all_protocols
    budget, single = results["team"].tokens, results["single"].tokens
    assert results["best_of_n"].tokens == results["majority"].tokens
    assert abs(results["majority"].tokens - budget) <= single / 2 + 0.1 * budget
    assert results["debate_judge"].tokens > results["debate"].tokens > budget


def test_sampling_is_that_of_the_config_and_of_each_agent(tmp_path):
    team = make_team(2)
    (result,) = run(tmp_path, team, fields={"top_k": 1}).values()
    assert set(result.accuracies) <= {0.0, 1.0}  # greedy: the samples of a task are the same
    team[1].generation_kwargs = {"max_completion_length": 1}
    (result,) = run(tmp_path, team, fields={"max_completion_length": 5, "temperature": 5.0}).values()
    texts = [record["transcripts"][0] for record in result.records]
    assert max(len(second["content"]) for _, second in texts) == 1 < max(len(first["content"]) for first, _ in texts)


def test_rewards_may_be_several_and_async(tmp_path):
    async def is_short(completions, **kwargs):
        return [float(len(completion) < 2) for completion in completions]

    fields = {"reward_weights": [0.4, 0.6]}
    (result,) = run(tmp_path, make_team(1), [has_a, is_short], fields=fields, threshold=1.0).values()
    for record in result.records:
        assert record["right"] == (record["answer"] == "a")
        assert record["reward"] == pytest.approx(0.4 * ("a" in record["answer"]) + 0.6 * (len(record["answer"]) < 2))


def test_saved_team_with_adapters_is_evaluated_as_it_was(tmp_path):
    make_model(seed=4).save_pretrained(tmp_path / "base")
    make_tokenizer().save_pretrained(tmp_path / "base")
    lora = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    team = [Agent(name, str(tmp_path / "base"), peft_config=lora, trainable=name == "x") for name in "xy"]
    trainer = make_trainer(tmp_path / "team", team)
    trainer.save_model()
    protocols = ["team", "majority", "debate_judge"]
    results = run(tmp_path, str(tmp_path / "team"), protocols=protocols, fields={"top_k": 1})
    rows = [{"prompt": prompt} for prompt in PROMPTS]
    for member in trainer.members:
        member.speaker.backend._kwargs["top_k"] = 1
    expected = [transcript.as_dicts() for transcript in trainer.team.collect(rows).transcripts]
    found = [record["transcripts"][0] for record in results["team"].records[::4]]
    assert found == [[{"name": m["name"], "content": m["content"]} for m in messages] for messages in expected]
    base = run(tmp_path, None, model=str(tmp_path / "base"), protocols=["single"], fields={"top_k": 1})
    assert len(base["single"].records) == 32


def test_team_that_takes_other_turns_than_it_was_saved_with_is_warned_of(tmp_path):
    path = str(tmp_path / "team")
    make_trainer(path, make_team(2), num_rounds=2).save_model()
    with pytest.warns(UserWarning, match="was saved with num_rounds=2 \\(now 1\\)"):
        (record, *_) = run(tmp_path, path)["team"].records
    assert len(record["transcripts"][0]) == 2
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*was saved with")
        run(tmp_path, path, fields={"num_rounds": 2})
        run(tmp_path, path, protocols=["single"])


def test_a_saved_team_samples_as_it_was_saved_unless_told_otherwise(tmp_path, monkeypatch):
    monkeypatch.setattr(resolving, "TeamTRConfig", functools.partial(TeamTRConfig, use_cpu=True, bf16=False))
    path = str(tmp_path / "team")
    make_trainer(path, make_team(2), max_completion_length=1, top_k=1, num_rounds=2).save_model()
    rows = Dataset.from_dict({"prompt": PROMPTS[:2]})
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*was saved with")
        (record, *_) = evaluate_protocols(path, has_a, rows)["team"].records
    assert record["tokens"] == 4 and len(record["transcripts"][0]) == 4
    with pytest.warns(UserWarning, match="was saved with max_completion_length=1 \\(now 2\\)"):
        run(tmp_path, path, fields={"num_rounds": 2, "top_k": 1})


def test_another_model_plays_the_baselines(tmp_path):
    """In the names and numbers of the team, and the team itself is not loaded unless it is evaluated."""
    model, team = make_model(seed=9), [Agent("p", "no/model"), Agent("q", "no/model")]
    agents = [Agent("agent", model, processing_class=make_tokenizer())]
    results = run(tmp_path, team, model=agents, protocols=["debate", "single"])
    assert {m["name"] for record in results["debate"].records for m in record["transcripts"][0]} == {"p", "q"}
    assert {m["name"] for record in results["single"].records for m in record["transcripts"][0]} == {"q"}
    alone = run(tmp_path, None, model=agents, protocols=["debate"], fields={"num_agents": 3})
    names = [m["name"] for m in alone["debate"].records[0]["transcripts"][0]]
    assert names == ["agent_1", "agent_2", "agent_3"] * 2


def test_link_has_no_coordination(tmp_path):
    """Its reward is of the whole conversation, of which no message holds the answer; a threshold does not change it."""
    tokenizer = link.make_tokenizer()
    team = [Agent(name, link.make_model(tokenizer, i), processing_class=tokenizer) for i, name in enumerate("ab")]
    results = run(
        tmp_path,
        team,
        (link.link_reward,),  # a tuple of rewards will do
        dataset=link.make_dataset(2, 3, 0),
        protocols=["team", "single", "debate"],
        threshold=0.0,
    )
    assert [result.coordination for result in results.values()] == [None] * 3
    assert results["team"].accuracy == 1 and results["single"].reward == 0


def test_router_and_stop_condition_are_the_teams(tmp_path):
    dataset = Dataset.from_dict({"prompt": PROMPTS})
    found = evaluate_protocols(
        make_team(2),
        has_a,
        dataset,
        make_config(tmp_path, num_rounds=2),
        EvaluationConfig(protocols=["team", "role_play"], role_prompts=["u", "u"]),
        router=lambda transcript: "y",
        stop_condition=lambda transcript: len(transcript.messages) == 3,
    )
    names = {key: {tuple(m["name"] for m in r["transcripts"][0]) for r in found[key].records} for key in found}
    assert names == {"team": {("y", "y", "y")}, "role_play": {("x", "y")}}


def test_own_answers_can_be_extracted(tmp_path, monkeypatch):
    say(monkeypatch, x=[["a5"], ["b4", "c4"]])
    dataset = Dataset.from_dict({"prompt": ["a"], "skip": [1]})
    config = EvaluationConfig(protocols=["majority"], budget_samples=3)
    found = evaluate_protocols(
        make_team(1),
        has_a,
        dataset,
        make_config(tmp_path),
        config,
        extract_answer=lambda text, row: text[row["skip"] :],
    )
    assert found["majority"].records[0]["answer"] == "b4"


def test_votes_with_the_reward_of_reasoning_gym_count_its_answers(tmp_path, monkeypatch):
    say(monkeypatch, x=[["7"], ["is 4.", "= 4"]])
    record = {"answer": "4", "question": "?", "metadata": {"source_dataset": "chain_sum"}}
    dataset = Dataset.from_dict({"prompt": ["a"], "answer": ["4"], "entry": [json.dumps(record)]})
    config = EvaluationConfig(protocols=["majority"], budget_samples=3)
    found = evaluate_protocols(make_team(1), reasoning_gym_reward, dataset, make_config(tmp_path), config)
    assert found["majority"].records[0]["answer"] == "is 4." and found["majority"].accuracy == 1


# Input that cannot be evaluated


class NeverMade:
    def __call__(self, *args, **kwargs):
        raise AssertionError("a model was loaded")


@pytest.mark.parametrize(
    "changes, error, message",
    [
        ({"team": "no/such/run"}, FileNotFoundError, "There is no team.json in 'no/such/run'"),
        ({"team": None}, ValueError, "'team' needs a team"),
        ({"team": []}, ValueError, "no agent to evaluate"),
        ({"team": [make_model()]}, TypeError, "a list of `Agent`"),
        ({"dataset": Dataset.from_dict({"prompt": []})}, ValueError, "evaluation dataset is empty"),
        ({"dataset": Dataset.from_dict({"text": ["a"]})}, ValueError, "has no 'prompt' column"),
        ({"dataset": [{"prompt": "a"}]}, TypeError, "needs a `datasets.Dataset`"),
        ({"reward_funcs": link.link_reward}, ValueError, "needs the column.s. digits"),
        ({"config": EvaluationConfig(protocols=["majority"])}, ValueError, "token budget of the team"),
    ],
)
def test_wrong_input_is_refused_before_a_model_is_loaded(tmp_path, monkeypatch, changes, error, message):
    monkeypatch.setattr(evaluate_module, "load_members", NeverMade())
    arguments = {"team": make_team(2), "reward_funcs": has_a, "dataset": Dataset.from_dict({"prompt": ["a"]})}
    with pytest.raises(error, match=message):
        evaluate_protocols(**arguments | {"args": make_config(tmp_path)} | changes)


def test_directory_of_a_model_is_no_team(tmp_path):
    make_model().save_pretrained(tmp_path / "model")
    with pytest.raises(FileNotFoundError, match="There is no team.json in .*model'. Pass the directory"):
        run(tmp_path, str(tmp_path / "model"))


def test_evaluated_team_can_be_trained_on(tmp_path):
    """The weights are shared with the evaluation, and left as they were."""
    trainer = make_trainer(tmp_path, make_team(2))
    agents = [Agent(member.name, member.model, processing_class=member.processing_class) for member in trainer.members]
    before = [param.clone() for member in trainer.members for param in member.model.parameters()]
    run(tmp_path, agents, protocols=["team", "majority"])
    after = [param for member in trainer.members for param in member.model.parameters()]
    assert all((old == new).all() and new.requires_grad for old, new in zip(before, after, strict=True))
    trainer.train()
    assert trainer.state.global_step == 2 and isinstance(trainer, TeamTRTrainer)
