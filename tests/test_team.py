"""A team that talks without a trainer: as it was saved, and with the distribution of its trainer's rollouts."""

import collections
from types import SimpleNamespace

import pytest
import torch
from enumeration import chi_square_p_value
from peft import LoraConfig
from tiny import PROMPTS, enumerate_rollouts, make_model, make_team, make_tokenizer, make_trainer, next_logps

from trl_teamtr import Agent, Team
from trl_teamtr.agents.settings import SamplingSettings, SpeakingSettings
from trl_teamtr.conversation.rules import TurnTaking


SHORT = SpeakingSettings(SamplingSettings(max_completion_length=4))


def make_saved(folder, team=None, **fields):
    trainer = make_trainer(folder, make_team(2) if team is None else team, **fields)
    trainer.save_model()
    return trainer, Team.from_pretrained(str(folder))


def said(transcripts):
    return [[(message.agent, message.ids) for message in transcript.messages] for transcript in transcripts]


def test_saved_team_says_what_its_trainer_says(tmp_path):
    trainer, team = make_saved(tmp_path, num_rounds=2, temperature=0.8, max_context_length=60)
    assert team.names == ("x", "y") and team.rules.max_turns == 4
    rows = [{"prompt": prompt} for prompt in PROMPTS]
    for seed in (0, 1):
        ours = team.generate(PROMPTS, seed=seed)
        torch.manual_seed(seed)
        theirs = trainer.team.collect(rows).transcripts
        assert said(ours) == said(theirs)
    assert said(team.generate(PROMPTS, seed=0)) == said(team.generate(PROMPTS, seed=0)) != said(ours)


@pytest.mark.parametrize("fields", [{}, {"num_rounds": 2, "temperature": 0.7}], ids=["plain", "two-rounds"])
def test_saved_team_has_the_exact_distribution(tmp_path, monkeypatch, fields):
    trainer, team = make_saved(tmp_path, **fields)
    total, temperature = 2000, fields.get("temperature", 1.0)
    transcripts = team.generate(["au"] * total, batch_size=500, seed=0)
    counts = collections.Counter(tuple(each) for each in said(transcripts))
    with monkeypatch.context() as context:
        context.setattr("tiny.next_logps", lambda model, ids: next_logps(model, ids, temperature))
        rollouts = enumerate_rollouts(trainer, "au")
    key = lambda rollout: tuple((message.agent, message.ids) for message in rollout.messages)  # noqa: E731
    assert chi_square_p_value(counts, rollouts, total, key) > 1e-3


def test_saved_sampling_and_turns_are_taken_over(tmp_path):
    team = make_team(2)
    team[1].generation_kwargs = {"temperature": 0.5}
    fields = {"top_k": 2, "kl_estimator": "exact", "router_kind": "random", "max_turns": 5, "stop_string": "u"}
    _, team = make_saved(tmp_path, team, max_completion_length=3, **fields)
    first, second = (speaker.sampling for speaker in team.speakers)
    assert first == SamplingSettings(top_k=2, max_completion_length=3)
    assert second == SamplingSettings(temperature=0.5, top_k=2, max_completion_length=3)
    assert team.rules.max_turns == 5 and team.rules.stop_string == "u"
    assert type(team.rules.router).__name__ == "RandomRouter"


def test_team_of_adapters_is_loaded_on_a_shared_base(tmp_path):
    make_model(seed=4).save_pretrained(tmp_path / "base")
    make_tokenizer().save_pretrained(tmp_path / "base")
    lora = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"], init_lora_weights=False)
    agents = [Agent(name, str(tmp_path / "base"), peft_config=lora, trainable=name == "x") for name in "xy"]
    trainer, team = make_saved(tmp_path / "team", agents)
    weights = [dict(speaker.policy.model.named_parameters()) for speaker in team.speakers]
    assert {n for n in weights[0] if weights[0][n] is weights[1][n]} == {n for n in weights[0] if "lora_" not in n}
    torch.manual_seed(0)
    theirs = trainer.team.collect([{"prompt": prompt} for prompt in PROMPTS]).transcripts
    assert said(team.generate(PROMPTS, seed=0)) == said(theirs)


def test_team_of_agents_needs_no_directory_and_leaves_their_models_alone():
    agents = make_team(3)
    agents[1].model.train()
    team = Team.from_agents(agents, SHORT, TurnTaking(num_rounds=2))
    (transcript,) = team.generate(["au"], seed=0)
    assert [message.agent for message in transcript.messages] == ["x", "y", "z"] * 2
    assert agents[1].model.training and "forward" not in vars(agents[1].model)
    assert said([transcript]) != said(team.generate(["au"], seed=1))


def test_private_prompts_are_read_by_their_agent():
    agents = make_team(2)
    team = Team.from_agents(agents, SpeakingSettings(SamplingSettings(top_k=1, max_completion_length=4)))
    plain, private = (
        team.generate(["au"], agent_prompts=prompts)[0] for prompts in (None, [{"y": "aaaaaaaa uuuuuu aaaa"}])
    )
    assert plain.messages[0] == private.messages[0] and private.private == {"y": "aaaaaaaa uuuuuu aaaa"}


def test_router_and_stop_condition_of_ones_own(tmp_path):
    make_saved(tmp_path)
    team = Team.from_pretrained(str(tmp_path), router=lambda t: "y", stop_condition=lambda t: len(t.messages) == 1)
    assert [[m.agent for m in t.messages] for t in team.generate(["a", "u"])] == [["y"], ["y"]]


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"prompts": "au"}, TypeError, "is one prompt, but must be a list"),
        ({"prompts": [{"role": "user", "content": "a"}]}, TypeError, "is one prompt, but must be a list"),
        ({"prompts": ["a"], "agent_prompts": []}, ValueError, "1 prompts, but 0 `agent_prompts`"),
        ({"prompts": ["a"], "agent_prompts": [{"z": "u"}]}, ValueError, "names z, but the team is x, y"),
        ({"prompts": ["a"], "batch_size": 0}, ValueError, "`batch_size` must be at least 1"),
        (
            {"prompts": ["a", "a" * 200]},
            ValueError,
            "Prompt 1 leaves the first speaker no room .*: x 124, y 124. Shorten",
        ),
    ],
)
def test_wrong_input_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        Team.from_agents(make_team(2), SHORT).generate(**arguments)


def test_no_team_is_said_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no team.json in"):
        Team.from_pretrained(str(tmp_path))
    with pytest.raises(ValueError, match="occur more than once: x"):
        Team.from_agents([make_team(1)[0]] * 2)
    assert Team.from_agents(make_team(1)).generate([]) == []


def test_a_team_makes_no_trainer(monkeypatch):
    from trl import GRPOTrainer

    def refuse(*args, **kwargs):
        raise AssertionError("a trainer was made")

    monkeypatch.setattr(GRPOTrainer, "__init__", refuse)
    assert len(Team.from_agents(make_team(2), SHORT).generate(["a"])[0].messages) == 2


def test_a_backend_that_agents_share_is_closed_once(tmp_path):
    team = make_trainer(tmp_path, make_team(3)).team
    closed = []
    shared, own = (SimpleNamespace(close=lambda name=name: closed.append(name)) for name in ("shared", "own"))
    for speaker, backend in zip(team.speakers, (shared, own, shared), strict=True):
        speaker.backend = backend
    team.close()
    assert closed == ["shared", "own"]
