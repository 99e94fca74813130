"""A team that talks without a trainer: as it was saved, and with the distribution of its trainer's rollouts."""

import collections
import functools
import itertools
import json
import math
from types import SimpleNamespace

import pytest
import torch
from enumeration import chi_square_p_value
from peft import LoraConfig
from tiny import (
    PROMPTS,
    Rollout,
    enumerate_rollouts,
    make_model,
    make_team,
    make_tokenizer,
    make_trainer,
    next_logps,
)

from trl_teamtr import Agent, Team, TeamTRConfig
from trl_teamtr.agents import resolving
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
        torch.manual_seed(seed)
        ours = team.generate(PROMPTS)
        torch.manual_seed(seed)
        theirs = trainer.team.collect(rows).transcripts
        assert said(ours) == said(theirs)
    assert said(team.generate(PROMPTS, seed=0)) == said(team.generate(PROMPTS, seed=0)) != said(ours)


def test_a_seed_gives_the_same_answers_in_batches_of_any_size():
    team = Team.from_agents(make_team(2), SHORT, TurnTaking(num_rounds=2))
    together = said(team.generate(PROMPTS, seed=3))
    assert said(team.generate(PROMPTS, seed=3, batch_size=1)) == together
    assert said(team.generate(PROMPTS, seed=3, batch_size=3)) == together
    assert said(team.generate([PROMPTS[0], "uuuu"], seed=3))[0] == together[0] == said([team.chat("a", seed=3)])[0]
    same = said(team.generate(["a"] * 6, seed=3))
    assert len({str(each) for each in same}) > 3  # the rows of a call have seeds of their own


def test_greedy_answers_are_the_most_probable_ids():
    team = Team.from_agents(make_team(2), SHORT, TurnTaking(num_rounds=2))
    (first,) = said(team.generate(["au"], greedy=True))
    assert said([team.chat("au", greedy=True, seed=1)])[0] == first == said(team.generate(["u", "au"], greedy=True))[1]
    messages = team.chat("au", greedy=True).messages
    context = team.speakers[0].tokenizer("au\n\nx:")["input_ids"]
    for token in messages[0].ids:
        assert token == next_logps(team.speakers[0].policy.model, context).argmax()
        context.append(token)


def backwards(transcript):
    """A router that can be saved."""
    return "yx"[len(transcript.messages)] if len(transcript.messages) < 2 else None


def said_u(transcript):
    """A stop condition that can be saved."""
    return "u" in transcript.messages[-1].text


# What a team is trained with, beside the tiny defaults, and the law of its agents' ids
LAWS = {
    "plain": {},
    "two-rounds": {"num_rounds": 2, "temperature": 0.7},
    "top-k": {"top_k": 2, "kl_estimator": "exact"},
    "random-router": {"router_kind": "random"},
    "own-router": {"router": backwards, "stop_condition": said_u},
    "stop-string": {"stop_string": "a", "num_rounds": 2},
    "lead-at-its-own-temperature": {"own": {"temperature": 0.5}},
    "frozen-lead": {"frozen": True, "temperature": 1.5},
    "bfloat16": {"speaking_precision": "bfloat16"},
}


def enumerate_law(trainer, monkeypatch, fields):
    """All rollouts of the prompt "au" with their probabilities, from the forward passes of the trainer's models."""
    own = {id(trainer.members[0].model): fields.get("own", {}).get("temperature")}

    def law(model, ids):
        with torch.autocast("cpu", torch.bfloat16, enabled="speaking_precision" in fields):
            logps = next_logps(model, ids, own.get(id(model)) or fields.get("temperature", 1.0))
        if "top_k" in fields:
            logps = logps.masked_fill(logps < logps.topk(fields["top_k"]).values[-1], -1e9).log_softmax(-1)
        return logps

    with monkeypatch.context() as context:
        context.setattr("tiny.next_logps", law)
        if "router_kind" not in fields:
            return enumerate_rollouts(trainer, "au")
        rollouts, cache = [], {}
        for order in itertools.product(trainer.team.names, repeat=2):
            context.setattr(trainer.team.rules, "router", lambda t, order=order: order[len(t.messages)])
            for rollout in enumerate_rollouts(trainer, "au", cache):
                rollouts.append(Rollout(rollout.messages, [*rollout.logps, -math.log(4)]))
        return rollouts


@pytest.mark.parametrize("case, seed", [*((case, 0) for case in LAWS), ("two-rounds", None), ("bfloat16", None)])
def test_saved_team_has_the_law_of_the_rollouts_that_it_was_trained_on(tmp_path, monkeypatch, case, seed):
    """No setting is passed again: all of them are those of the directory."""
    fields = dict(LAWS[case])
    own, frozen = fields.pop("own", None), fields.pop("frozen", False)
    agents = make_team(2)
    agents[0].generation_kwargs, agents[1].trainable = own, not frozen
    trainer, team = make_saved(tmp_path, agents, **fields)
    total = 2000
    transcripts = team.generate(["au"] * total, batch_size=500, seed=seed)
    rollouts = enumerate_law(trainer, monkeypatch, LAWS[case])
    key = lambda rollout: tuple((message.agent, message.ids) for message in rollout.messages)  # noqa: E731
    counts = collections.Counter(map(key, transcripts))
    assert sum(rollout.probability for rollout in rollouts) == pytest.approx(1, abs=1e-5)
    assert chi_square_p_value(counts, rollouts, total, key) > 1e-3
    if case == "plain":  # the test can tell
        with torch.no_grad():
            trainer.model.lm_head.weight += 0.1 * torch.randn_like(trainer.model.lm_head.weight)
        assert chi_square_p_value(counts, enumerate_law(trainer, monkeypatch, {}), total, key) < 1e-3


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
    torch.manual_seed(0)
    assert said(team.generate(PROMPTS)) == said(theirs)


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


def test_a_router_that_could_not_be_saved_is_asked_for(tmp_path):
    make_trainer(tmp_path, make_team(2), router=lambda t: backwards(t)).save_model()
    with pytest.raises(ValueError, match="has a router of its own, '.*<lambda>', which cannot be imported"):
        Team.from_pretrained(str(tmp_path))
    with pytest.raises(ValueError, match="has a router of its own, '.*<lambda>', which cannot be imported"):
        make_trainer(tmp_path / "more", str(tmp_path))
    team = Team.from_pretrained(str(tmp_path), router=backwards)
    assert [message.agent for message in team.chat("au").messages] == ["y", "x"]
    team.save_pretrained(str(tmp_path / "new"))
    assert Team.from_pretrained(str(tmp_path / "new")).rules.router is backwards
    assert make_trainer(tmp_path / "more", str(tmp_path / "new")).team.rules.router is backwards


def test_a_saved_team_is_in_evaluation_mode_and_of_format_2(tmp_path):
    _, team = make_saved(tmp_path)
    assert not any(speaker.policy.model.training for speaker in team.speakers)
    content = json.loads((tmp_path / "team.json").read_text())
    assert content["format"] == 2 and content["conversational"] is False
    assert content["sampling"]["max_completion_length"] == 2 and content["agents"][0]["dtype"] == "float32"
    assert content["versions"].keys() == {"trl-teamtr", "trl", "transformers", "peft", "accelerate", "torch"}
    assert content["machine"].keys() == {"system", "python", "cpu_cores", "memory_gib", "gpus"}


def test_a_team_of_format_1_still_loads(tmp_path):
    _, team = make_saved(tmp_path, num_rounds=2, temperature=0.8)
    file = tmp_path / "team.json"
    content = json.loads(file.read_text())
    for entry in content["agents"]:
        for name in ("base_model", "is_adapter", "dtype"):
            del entry[name]
    file.write_text(json.dumps({"format": 1, "agents": content["agents"], "rollout": content["rollout"]}))
    old = Team.from_pretrained(str(tmp_path))
    assert said(old.generate(PROMPTS, seed=1)) == said(team.generate(PROMPTS, seed=1))
    assert old.speakers[0].sampling == team.speakers[0].sampling and old.conversational is None


def test_a_team_of_a_newer_format_is_refused(tmp_path):
    make_saved(tmp_path)
    file = tmp_path / "team.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": 3}))
    with pytest.raises(ValueError, match="saved by a newer version: its team.json has format 3.*Upgrade"):
        Team.from_pretrained(str(tmp_path))


def test_a_question_is_a_turn_of_the_user_if_it_was_in_training():
    team = Team.from_agents(make_team(2), SHORT)
    assert team.chat("au").prompt == "au"
    for speaker in team.speakers:
        speaker.tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}.{% endfor %}"
    question = [{"role": "user", "content": "au"}]
    assert team.chat("au").prompt == team.chat(question).prompt == question
    team.conversational = False
    assert team.chat("au").prompt == "au"


def test_a_prompt_without_room_is_refused_before_anything_is_generated():
    team = Team.from_agents(make_team(2), SHORT)
    with pytest.raises(ValueError, match="takes 204 tokens in the view of x, which speaks first and has room for 124"):
        team.begin("a" * 200)


def test_a_member_speaks_alone(tmp_path):
    team = Team.from_agents(make_team(2), SHORT)
    alone = Team.from_agents(make_team(2)[1:], SHORT)
    (message,) = team.member("y").chat("au", seed=2).messages
    assert message == alone.chat("au", seed=2).messages[0] and message.agent == "y"
    assert [m.agent for m in team.chat("au").messages] == ["x", "y"]


def test_a_trainer_takes_the_settings_of_a_saved_team_or_says_what_differs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_saved(tmp_path / "run", num_rounds=2, temperature=0.8, max_context_length=60)
    monkeypatch.setattr(
        resolving, "TeamTRConfig", functools.partial(TeamTRConfig, use_cpu=True, bf16=False, report_to="none")
    )
    args = resolving.default_args("run")
    assert (args.num_rounds, args.temperature, args.max_context_length) == (2, 0.8, 60)
    with pytest.warns(UserWarning, match=r"saved with temperature=0.8 \(now 0.5\)\. Pass the same"):
        make_trainer(tmp_path / "more", "run", num_rounds=2, temperature=0.5, max_context_length=60)
