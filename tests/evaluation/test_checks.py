import functools
import warnings

import pytest
from datasets import Dataset, DatasetDict, IterableDataset
from tiny import make_model

from trl_teamtr import Agent
from trl_teamtr.evaluation import EvaluationConfig
from trl_teamtr.evaluation.checks import (
    check_dataset,
    check_players,
    check_prompts,
    check_rewards,
    reads_transcripts,
)
from trl_teamtr.tasks.link import link_reward
from trl_teamtr.tasks.reasoning_gym import reasoning_gym_reward


TEAM = [Agent("x", "X"), Agent("y", "Y")]


class Judge:
    def __call__(self, completions, level, *, weight=1.0, transcripts=None, **kwargs):
        return [weight * level for _ in completions]


async def judge_later(prompts, completions, completion_ids, trainer_state, log_extra, log_metric, gold):
    return [0.0] * len(completions)


def test_rewards_that_read_whole_conversations_are_known():
    assert reads_transcripts(link_reward) and reads_transcripts(Judge())
    assert not reads_transcripts(reasoning_gym_reward) and not reads_transcripts(judge_later)
    assert not reads_transcripts("some/reward-model") and not reads_transcripts(make_model())


def test_columns_that_a_reward_asks_for_must_be_there():
    dataset = Dataset.from_dict({"prompt": ["a"], "level": [1]})
    check_dataset(dataset, [Judge(), "some/reward-model", make_model(), lambda **kwargs: []])
    with pytest.raises(ValueError, match="'judge_later' needs the column.s. gold, but those .* are prompt, level"):
        check_dataset(dataset, [judge_later])
    with pytest.raises(ValueError, match="'reasoning_gym_reward' needs the column.s. answer, entry"):
        check_dataset(dataset, [reasoning_gym_reward])
    with pytest.raises(ValueError, match="'link_reward' needs the column.s. digits"):
        check_dataset(dataset, [functools.partial(link_reward)])


@pytest.mark.parametrize("kind", [DatasetDict, list, None])
def test_only_a_dataset_can_be_evaluated_on(kind):
    with pytest.raises(TypeError, match="needs a `datasets.Dataset`"):
        check_dataset(kind and kind(), [])


def test_stream_and_empty_dataset_are_refused():
    with pytest.raises(TypeError, match="IterableDataset. Load a stream with `streaming=False`"):
        check_dataset(IterableDataset.from_generator(lambda: iter([{"prompt": "a"}])), [])
    with pytest.raises(ValueError, match="evaluation dataset is empty"):
        check_dataset(Dataset.from_dict({"prompt": []}), [])


@pytest.mark.parametrize(
    "fields, team, players, message",
    [
        ({}, None, TEAM, "'team' needs a team"),
        ({"protocols": ["single"]}, None, [], "no agent to evaluate"),
        ({"protocols": ["majority"]}, TEAM, TEAM, "token budget of the team, but 'team' is not among"),
        ({"protocols": ["best_of_n"]}, None, TEAM, "set `budget_samples`"),
        ({"protocols": ["debate"]}, None, TEAM[:1], "A debate needs two agents, but there is one, 'x'"),
        ({"protocols": ["debate_judge"]}, None, [Agent("judge", "X"), *TEAM], "is called 'judge', and so is an agent"),
        ({"role_prompts": ["a"]}, TEAM, TEAM, "`role_prompts` has 1 prompts, but there are 2 agents: x, y"),
    ],
)
def test_missing_players_are_named(fields, team, players, message):
    with pytest.raises(ValueError, match=message):
        check_players(EvaluationConfig(**fields), team, players)


def test_teams_consist_of_agents():
    with pytest.raises(TypeError, match="a list of `Agent`, got an element of type str"):
        check_players(EvaluationConfig(), ["x"], ["x"])


def test_protocols_with_all_they_need_pass():
    check_players(EvaluationConfig(protocols=["majority"], budget_samples=2), None, TEAM)
    check_players(EvaluationConfig(protocols=["team", "best_of_n", "debate_judge"]), TEAM, TEAM)


def test_prompts_must_be_for_the_agents_at_the_table():
    dataset = Dataset.from_list([{"prompt": "a", "agent_prompts": {"x": "1", "y": "2"}}])
    check_prompts(EvaluationConfig(protocols=["team", "single", "role_play"]), dataset, TEAM, TEAM)
    others = [Agent("x", "X"), Agent("q", "Q")]
    with pytest.raises(ValueError, match="evaluation dataset's 'agent_prompts' name y, but the team is x, q"):
        check_prompts(EvaluationConfig(protocols=["team", "debate"]), dataset, TEAM, others)
    with pytest.raises(ValueError, match="evaluation dataset has no 'prompt' column; its columns are question"):
        check_prompts(EvaluationConfig(), Dataset.from_dict({"question": ["a"]}), TEAM, TEAM)


def test_rewards_may_read_environments_if_there_are_some():
    def counts(environments, **kwargs):
        return [environment.count for environment in environments]

    dataset = Dataset.from_dict({"prompt": ["a"]})
    check_dataset(dataset, [counts], acts=True)
    with pytest.raises(ValueError, match="'counts' needs the column.s. environments"):
        check_dataset(dataset, [counts])
    with pytest.raises(ValueError, match="There is no reward: no `reward_funcs`, and no environment"):
        check_rewards(EvaluationConfig(), [])
    check_rewards(EvaluationConfig(), [counts])


def test_single_model_without_the_agents_prompt_is_told():
    dataset, team = (
        Dataset.from_dict({"prompt": ["a"]}),
        [Agent("x", "X", system_prompt="Reply with the number only.")],
    )
    with pytest.warns(UserWarning, match="Agent 'x' has a system prompt, and the single model .* Set `single_prompt`"):
        check_prompts(EvaluationConfig(protocols=["majority"]), dataset, team, team)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_prompts(EvaluationConfig(protocols=["majority"], single_prompt="Reply."), dataset, team, team)
        check_prompts(EvaluationConfig(protocols=["team"]), dataset, team, team)
