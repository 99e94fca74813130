import pytest
from scripted import is_answer
from trl.rewards import accuracy_reward

from trl_teamtr import Agent, Message, Transcript
from trl_teamtr.evaluation import EvaluationConfig
from trl_teamtr.evaluation.protocols import (
    ROLES,
    debate_length,
    default_reader,
    last_line,
    math_answer,
    reasoning_gym_answer,
    seat,
    spread,
    take_turns,
    vote,
    without_english,
)
from trl_teamtr.tasks.link import link_reward
from trl_teamtr.tasks.reasoning_gym import reasoning_gym_reward


# Answers and votes


@pytest.mark.parametrize("text, line", [("a\n b \n\n", "b"), ("", ""), (" \n", ""), ("4", "4")])
def test_last_line(text, line):
    assert last_line(text, {}) == line


def test_answer_of_reasoning_gym_is_what_its_reward_scores():
    assert reasoning_gym_answer("I think it is 1,234.", {"answer": "7"}) == "1234"


@pytest.mark.parametrize(
    "answers, winner",
    [
        (["a"], 0),
        (["a", "b", "b"], 1),
        (["a", "b"], 0),
        (["c", "b", "a", "b", "a"], 1),
        (["", "", "a"], 2),
        (["", ""], 0),
    ],
)
def test_vote_goes_to_the_majority_and_a_tie_to_the_first(answers, winner):
    """An empty answer is no vote."""
    assert vote(answers) == winner


def test_answers_are_read_as_their_reward_reads_them():
    assert default_reader([is_answer]) is last_line
    assert default_reader([is_answer, reasoning_gym_reward]) is reasoning_gym_answer
    read = default_reader([accuracy_reward])
    assert read is math_answer
    texts = ["so \\boxed{5}", "Thus, the answer is $\\boxed{4}$.", "4+0 = 4, hence \\boxed{4}", "I do not know"]
    assert [read(text, {}) for text in texts] == ["5", "4", "4", ""]
    assert vote([read(text, {}) for text in texts]) == 1


def test_link_is_played_without_english():
    config = EvaluationConfig(judge_prompt="a1")
    own = without_english(config, AGENTS, [link_reward])
    assert own.debate_prompt is None and own.judge_prompt == "a1"
    assert own.role_prompts == [agent.system_prompt or "" for agent in AGENTS]
    assert without_english(config, AGENTS, [is_answer]) is config


@pytest.mark.parametrize(
    "answers, length",
    [("aab" + "bcb", 4), ("bbb" + "acc", 5), ("bbb" + "abc", 4), ("ab", 1), ("", 0)],
)
def test_only_the_last_round_of_a_debate_votes(answers, length):
    assert debate_length(list(answers), num_agents=3) == length


# Seats


AGENTS = [Agent("x", "X", system_prompt="plan"), Agent("y", "Y"), Agent("z", "Z", chat_template_kwargs={"a": 1})]


def seats(protocol, **fields):
    return [
        (agent.name, agent.model, agent.system_prompt) for agent in seat(protocol, AGENTS, EvaluationConfig(**fields))
    ]


def test_single_model_is_the_last_one():
    for protocol in ("single", "best_of_n", "majority"):
        assert seats(protocol) == [("z", "Z", None)] and seats(protocol, single_prompt="s") == [("z", "Z", "s")]
    assert seat("single", AGENTS, EvaluationConfig())[0].chat_template_kwargs == {"a": 1}


def test_debaters_are_equals_and_the_judge_is_one_more():
    debaters = [("x", "X", "d"), ("y", "Y", "d"), ("z", "Z", "d")]
    assert seats("debate", debate_prompt="d") == debaters
    assert seats("debate_judge", debate_prompt="d", judge_prompt="j") == [*debaters, ("judge", "Z", "j")]


def test_roles_are_the_agents_own_or_the_given_or_the_usual():
    assert [prompt for *_, prompt in seats("role_play")] == ["plan", ROLES[1], ROLES[2]]
    assert [prompt for *_, prompt in seats("role_play", role_prompts=["a", "b", "c"])] == ["a", "b", "c"]


def test_one_model_plays_the_whole_team():
    (one,) = [Agent("agent", "M", chat_template_kwargs={"b": 2})]
    players = spread([one], AGENTS, num_agents=None)
    assert [(a.name, a.model, a.system_prompt) for a in players] == [
        ("x", "M", "plan"),
        ("y", "M", None),
        ("z", "M", None),
    ]
    assert players[0].chat_template_kwargs == {"b": 2}
    short = Agent("x", "M", generation_kwargs={"top_k": 1}, chat_template_kwargs={"c": 1})
    (player,) = spread([one], [short], num_agents=None)
    assert player.generation_kwargs == {"top_k": 1} and player.chat_template_kwargs == {"b": 2}
    assert [agent.name for agent in spread([one], None, num_agents=2)] == ["agent_1", "agent_2"]
    assert spread([one], None, num_agents=None) == [one] and spread(AGENTS, AGENTS[:1], 5) == AGENTS


# Turns


def speakers(protocol, names, **fields):
    turns, router = take_turns(protocol, len(names), EvaluationConfig(**fields))
    transcript, found = Transcript("a", names), []
    if router is None:
        assert turns.max_turns is None and turns.router == "round_robin"
        return list(names) * turns.num_rounds
    for _ in range(turns.max_turns):
        found.append(router(transcript))
        transcript.messages.append(Message(found[-1], ""))
    return found


def test_turns():
    assert speakers("single", ("z",)) == ["z"]
    assert speakers("role_play", ("x", "y")) == ["x", "y"]
    assert speakers("debate", ("x", "y"), debate_rounds=3) == ["x", "y"] * 3
    assert speakers("debate_judge", ("x", "y", "judge")) == ["x", "y", "x", "y", "judge"]


def test_a_remote_player_takes_no_settings_of_models_and_gives_them_none_of_its_api():
    here = Agent(
        "a", "m", system_prompt="p", generation_kwargs={"eos_token_id": 3}, chat_template_kwargs={"tone": "dry"}
    )
    far = Agent("b", endpoint="http://host/v1", model="far", generation_kwargs={"seed": None})
    for one, member in ((here, far), (far, here)):
        (player,) = spread([one], [member], None)
        assert (player.name, player.system_prompt) == (member.name, member.system_prompt)
        assert player.generation_kwargs == one.generation_kwargs and player.model == one.model
        assert player.chat_template_kwargs == one.chat_template_kwargs and player.endpoint == one.endpoint
