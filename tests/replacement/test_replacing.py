"""Members are replaced, added and removed; what fails leaves the team whole."""

import pytest
import torch
from newcomers import ROWS, make_newcomer
from peft import LoraConfig
from tiny import make_model, make_team, make_tokenizer, weights

from trl_teamtr import Agent, Team, load_team
from trl_teamtr.replacement import add_member, remove_member, replace_member, replacing


def reward(completions, **kwargs):
    return [float("a" in completion) for completion in completions]


def texts(team, seed=0):
    return [str(talk) for talk in team.generate(ROWS[:8], seed=seed)]


@pytest.mark.parametrize("objective", ["ce", "kl"])
def test_the_new_member_becomes_like_the_old_one(make_old_team, make_args, objective):
    team = make_old_team()
    stays = team.speakers[0].policy.model
    newcomer = (
        make_newcomer() if objective == "ce" else Agent("y", make_model(4, 9), processing_class=make_tokenizer(4))
    )
    report = replace_member(team, "y", newcomer, ROWS * 4, make_args(objective=objective), reward)
    unaligned, aligned = report.unaligned, report.aligned
    assert aligned.cross_entropy < unaligned.cross_entropy - 0.3
    assert aligned.agreement > unaligned.agreement
    low, high = aligned.shock[1:]
    assert low <= aligned.shock[0] <= high
    assert aligned.shock[0] == pytest.approx(aligned.returns[0] - aligned.returns[1])
    if objective == "kl":
        assert aligned.bound < unaligned.bound and abs(unaligned.shock[0]) <= unaligned.bound
    assert team.names == ("x", "y") and team.rules.max_turns == 4
    assert next(team.speakers[0].policy.model.parameters()) is next(stays.parameters())
    (event,) = team.describe()["history"]
    assert event["event"] == "replaced" and event["member"] == "y" and event["aligned"]
    assert report.num_probes == 128 and report.num_held_out == 32 and report.tokens_trained > report.tokens_decoded > 0


def test_the_trained_weights_are_those_that_speak_and_are_saved(make_old_team, make_args, tmp_path):
    team, newcomer = make_old_team(), make_newcomer()
    before = weights(newcomer.model)
    replace_member(team, "y", newcomer, ROWS, make_args(num_train_epochs=1))
    assert any(not torch.equal(before[name], own) for name, own in newcomer.model.named_parameters())
    team.save_pretrained(str(tmp_path / "new"))
    again = Team.from_pretrained(str(tmp_path / "new"))
    assert texts(again) == texts(team) and again.describe()["history"] == team.describe()["history"]
    assert [agent.history for agent in load_team(str(tmp_path / "new"))] == [team.describe()["history"]] * 2


def test_an_adapter_on_a_shared_base_is_aligned_and_the_base_is_not_touched(make_old_team, make_args):
    base, tokenizer = make_model(4, seed=3), make_tokenizer(4)
    lora = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "o_proj"], task_type="CAUSAL_LM")
    team = Team.from_agents(
        [Agent(name, base, peft_config=lora, processing_class=tokenizer) for name in "xy"], make_old_team().settings
    )
    before, talk = weights(base), texts(team)
    wider = LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj", "o_proj"], task_type="CAUSAL_LM")
    newcomer = Agent("y", base, peft_config=wider, processing_class=tokenizer)
    report = replace_member(team, "y", newcomer, ROWS, make_args(num_train_epochs=2))
    assert report.steps > 0 and all(torch.equal(before[name], own) for name, own in base.named_parameters())
    adapted = team.speakers[1].policy.model
    assert adapted.peft_config["default"].r == 8
    own = dict(adapted.named_parameters())
    assert any("lora_B" in name and weight.abs().sum() > 0 for name, weight in own.items())
    assert all(weight.requires_grad == ("lora_" in name) for name, weight in own.items())
    assert texts(team) != talk


def test_a_frozen_member_of_a_longer_team_and_a_router_of_ones_own(make_old_team, make_args):
    team = make_old_team(3, num_rounds=1)

    def backwards(transcript):
        return "zyx"[len(transcript.messages)] if len(transcript.messages) < 3 else None

    team = Team.from_agents(make_team(3, 4), team.settings, team.turns, router=backwards)
    report = replace_member(team, "z", make_newcomer("z", trainable=False), ROWS, make_args(num_train_epochs=1))
    assert report.aligned.cross_entropy < report.unaligned.cross_entropy
    assert team.rules.router is backwards and not team.speakers[2].agent.trainable
    assert [message.agent for message in team.chat("a", seed=0).messages] == ["z", "y", "x"]


def test_without_alignment_nothing_is_trained(make_old_team, make_args):
    team, newcomer = make_old_team(), make_newcomer()
    before = weights(newcomer.model)
    report = replace_member(team, "y", newcomer, eval_prompts=ROWS, args=make_args(align=False), reward_funcs=reward)
    assert all(torch.equal(before[name], own) for name, own in newcomer.model.named_parameters())
    assert report.aligned is None and report.steps == 0 and report.unaligned.shock is not None


def test_a_model_that_is_its_own_successor_changes_nothing(make_old_team, make_args):
    """The same seeds, so that what is alike is said alike."""
    team = make_old_team()
    same = team.speakers[1].agent
    report = replace_member(team, "y", same, ROWS, make_args(align=False), reward)
    measure = report.unaligned
    assert measure.agreement == 1.0 and measure.shock == (0.0, 0.0, 0.0)
    assert measure.kl[0] == pytest.approx(0.0, abs=1e-5) and measure.bound == pytest.approx(0.0, abs=2e-3)


# What is refused


def test_what_cannot_be_is_refused_and_leaves_the_team_whole(make_old_team, make_args):
    team = make_old_team()
    speakers, talk = list(team.speakers), texts(team)
    other = make_newcomer()
    cases = [
        (lambda: replace_member(team, "q", other, ROWS), "has no member 'q'. Its members are x, y"),
        (lambda: replace_member(team, "x", other, ROWS), "called 'y', but takes the place of 'x'"),
        (lambda: replace_member(team, "y", other), "`probes` has no prompt"),
        (lambda: replace_member(team, "y", other, []), "`probes` has no prompt"),
        (lambda: replace_member(team, "y", other, ROWS[:1]), "at least two are needed"),
        (lambda: replace_member(team, "y", other, [{"question": "a"}] * 2), "has no column 'prompt', but 'question'"),
        (
            lambda: replace_member(team, "y", other, ROWS, make_args(objective="kl")),
            "has 4 tokens and 4 logits, and that of the new one 6 tokens and 6 logits",
        ),
        (lambda: remove_member(team, "q"), "has no member 'q'"),
        (lambda: add_member(team, other), "has a member 'y' already"),
        (lambda: add_member(team, make_newcomer("z"), position=3), "between 0 and 2, got 3"),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message.replace(".", r"\.")):
            call()
    other.model.requires_grad_(False)
    with pytest.raises(ValueError, match="none of its weights can be trained"):
        replace_member(team, "y", other, ROWS, make_args())
    assert team.speakers == speakers and texts(team) == talk and not team.describe()["history"]


def test_a_swap_that_fails_half_way_leaves_the_old_team_whole(make_old_team, make_args, monkeypatch):
    team = make_old_team()
    speakers, talk, kept = list(team.speakers), texts(team), [weights(s.policy.model) for s in team.speakers]

    def fail(*args, **kwargs):
        align(*args, **kwargs)
        raise OSError("No space left on device")

    align = replacing.align
    monkeypatch.setattr(replacing, "align", fail)
    with pytest.raises(OSError, match="No space left"):
        replace_member(team, "y", make_newcomer(), ROWS, make_args(num_train_epochs=1))
    assert team.speakers == speakers and team.names == ("x", "y") and not team.describe()["history"]
    for before, speaker in zip(kept, speakers, strict=True):
        assert all(torch.equal(before[name], own) for name, own in speaker.policy.model.named_parameters())
    assert texts(team) == talk
    monkeypatch.undo()
    replace_member(team, "y", make_newcomer(), ROWS, make_args(num_train_epochs=1))  # nothing is in the way


# Adding and removing


def test_a_member_is_added_and_removed(make_old_team):
    team = make_old_team()
    report = add_member(team, make_newcomer("z"), position=1)
    assert team.names == ("x", "z", "y") and team.rules.max_turns == 6 and report.before == "none"
    assert [message.agent for message in team.chat("a", seed=0).messages] == [*"xzy", *"xzy"]
    remove_member(team, "x")
    assert team.names == ("z", "y") and [m.agent for m in team.chat("a", seed=0).messages] == [*"zyzy"]
    assert [(e["event"], e["member"]) for e in team.describe()["history"]] == [("added", "z"), ("removed", "x")]
    remove_member(team, "z")
    with pytest.raises(ValueError, match="'y' is the only member"):
        remove_member(team, "y")


def test_the_second_member_of_a_team_of_one_gets_company(make_old_team):
    team = make_old_team(1, num_rounds=1)
    alone = team.speakers[0].renderer_for("a").cue
    add_member(team, make_newcomer("y"))
    assert alone is None and team.speakers[0].renderer_for("a").cue == "x:"
    assert [m.agent for m in team.chat("a", seed=0).messages] == ["x", "y"]


def test_a_member_is_added_with_a_demonstrator(make_old_team, make_args):
    team = make_old_team()
    demonstrator = Agent("z", make_model(4, seed=5), processing_class=make_tokenizer(4))
    report = add_member(team, make_newcomer("z"), demonstrator=demonstrator, probes=ROWS, args=make_args())
    assert report.aligned.cross_entropy < report.unaligned.cross_entropy
    assert team.names == ("x", "y", "z") and team.speakers[2].tokenizer.get_vocab()["aa"] == 0
    assert [(e["event"], e["aligned"]) for e in team.describe()["history"]] == [("added", True)]
