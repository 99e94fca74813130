"""Groups by turn: what their rollouts have in common, and that what they do not has the distribution of the present team."""

import collections

import pytest
import torch
from draft_cases import Case, key, p_value
from resuming import SETTINGS, StopAfter, final_state
from tiny import BY_TURN, make_team, make_trainer
from tool_teams import Dial, Lots, Saved, ToolCase, Untold
from tool_teams import p_value as p_value_of_tools

from trl_teamtr.policy.scoring import loss_mask
from trl_teamtr.rollouts.stage_weights import ScoredView
from trl_teamtr.tools.worlds import TEAM


SIZE = 4  # of a group


def make_case(folder, agents, rounds, router, mode="full", **own):
    return Case(folder, agents, rounds, router, "none", mode, **BY_TURN | own)


CASES = [
    (2, 2, "round_robin", "full", "y"),
    (2, 2, "random", "full", "x"),
    (3, 2, "text", "full", "z"),
    (2, 2, "text", "suffix", "y"),
    (2, 2, "random", "speculative", "y"),
]


@pytest.mark.parametrize("agents, rounds, router, mode, name", CASES)
def test_every_branch_of_a_suffix_has_the_law_of_the_team(tmp_path, monkeypatch, agents, rounds, router, mode, name):
    case, total = make_case(tmp_path, agents, rounds, router, mode), 1000
    trunks = case.rollouts(total)
    if mode != "full":  # the trunks are then those of the last update, resampled
        case.update(1, seed=1)
        trunks = case.rollouts(total)
        assert trunks.tokens_kept > 0
    found = case.trainer.branches.grow(trunks, name)
    law = case.law(monkeypatch)
    for number in (0, 2):
        branches = collections.Counter(key(transcript) for transcript in found.transcripts[number::SIZE])
        assert p_value(branches, law) > 0.001 / len(CASES) / 2


def test_branches_are_independent_of_their_trunk_given_the_beginning(tmp_path, monkeypatch):
    """Three messages of the second agent, in one context each time."""
    case = make_case(tmp_path, 2, 1, "round_robin", num_generations=2)
    found = case.trainer.branches.grow(case.rollouts(2500), "y")
    law = case.law(monkeypatch)
    first = collections.Counter()
    for rollout, probability in law.items():
        first[rollout[0]] += probability
    joint = {
        (one, other): p * q / first[one[0]] for one, p in law.items() for other, q in law.items() if one[0] == other[0]
    }
    pairs = zip(found.transcripts[::2], found.transcripts[1::2], strict=True)
    assert p_value(collections.Counter((key(one), key(other)) for one, other in pairs), joint) > 1e-3


def test_branches_of_one_message_go_on_from_a_turn_that_is_drawn_uniformly(tmp_path, monkeypatch):
    """The law of turn and branch together: that of the beginning and the draw, times that of the rest given the beginning."""
    case = make_case(tmp_path, 2, 2, "text", credit="message", num_generations=2)
    found = case.trainer.branches.grow(case.rollouts(2500), "x")
    law = case.law(monkeypatch)
    expected = collections.Counter()
    beginnings = collections.defaultdict(list)
    for rollout, probability in law.items():
        for turn in range(len(rollout)):
            beginnings[rollout[:turn]].append((rollout, probability))
    for trunk, probability in law.items():
        own = [turn for turn, (agent, _) in enumerate(trunk) if agent == "x"]
        for number, turn in enumerate(own):
            among = beginnings[trunk[:turn]]
            mass = sum(p for _, p in among)
            for branch, p in among:
                expected[number, branch] += probability / len(own) * p / mass
    numbers = found.credited[::2].tolist()
    seen = collections.Counter(zip(numbers, map(key, found.transcripts[1::2]), strict=True))
    assert p_value(seen, expected) > 1e-3
    assert len(set(numbers)) > 1  # it speaks first in every rollout, and in some once more


@pytest.mark.parametrize("credit", ["suffix", "message"])
def test_rollouts_of_a_group_begin_like_their_trunk(tmp_path, credit):
    case = make_case(tmp_path, 2, 2, "random", credit=credit)
    trunks = case.rollouts(40)
    before = [key(transcript) for transcript in trunks.transcripts]
    found = case.trainer.branches.grow(trunks, "x")
    assert [key(transcript) for transcript in trunks.transcripts] == before
    tokens = silent = 0
    for number, trunk in enumerate(trunks.transcripts):
        group = found.transcripts[SIZE * number : SIZE * (number + 1)]
        rows = slice(SIZE * number, SIZE * (number + 1))
        own = trunk.turns_of("x")
        assert key(group[0]) == key(trunk) and {each.seed for each in group} == {trunk.seed}
        if not own:
            silent += 1
            assert {key(each) for each in group} == {key(trunk)} and found.weights[rows].tolist() == [0] * SIZE
            continue
        assert found.weights[rows].tolist() == [1 if credit == "suffix" else len(own)] * SIZE
        turn = own[0] if credit == "suffix" else own[found.credited[SIZE * number]]
        assert all(key(each)[:turn] == key(trunk)[:turn] and each.messages[turn].agent == "x" for each in group)
        tokens += sum(len(message.ids) for each in group[1:] for message in each.messages[turn:])
    assert 0 < silent < 40
    assert found.tokens_decoded == trunks.tokens_decoded + tokens
    said = sum(len(message.ids) for transcript in found.transcripts for message in transcript.messages)
    assert found.tokens_decoded + found.tokens_kept == said
    assert found.team_every == (1 if credit == "suffix" else SIZE)
    assert (found.credited is None) == (credit == "suffix")


@pytest.mark.parametrize("world", [Dial, Saved])
@pytest.mark.parametrize("mode", ["full", "speculative"])
def test_branches_act_on_environments_of_their_own(tmp_path, world, mode):
    case, total = ToolCase(tmp_path, world, mode, **BY_TURN), 300
    trunks = case.rollouts(total)
    if mode == "speculative":
        case.update(0, seed=3)
        trunks = case.rollouts(total)
    found = case.trainer.branches.grow(trunks, "y")
    law = case.law()
    for number in (0, 3):
        assert p_value_of_tools(found.transcripts[number::SIZE], law) > 1e-3
    assert len({id(transcript.world) for transcript in found.transcripts}) == SIZE * total
    for transcript in found.transcripts:
        assert transcript.world.environments[TEAM].count == sum(len(m.tool_uses) for m in transcript.messages)
    assert any(m.tool_uses for t in found.transcripts for m in t.messages)


@pytest.mark.parametrize("world", [Untold, Lots])
def test_environments_whose_state_cannot_be_had_again_are_refused(tmp_path, world):
    with pytest.raises(
        ValueError, match="lets rollouts part after a common beginning, but an environment does not say"
    ):
        ToolCase(tmp_path, world, None, **BY_TURN)


# Runs


@pytest.mark.parametrize("credit", ["suffix", "message"])
@pytest.mark.parametrize("mode", ["full", "suffix", "speculative"])
def test_resumed_run_equals_one_that_was_never_stopped(tmp_path, credit, mode):
    settings = SETTINGS | BY_TURN | {"credit": credit, "resampling": mode, "num_stages": 3, "num_rounds": 2}
    settings |= {"router_kind": "random", "learning_rate": 2e-2}
    whole = make_trainer(tmp_path / "whole", make_team(2), **settings)
    whole.train()
    make_trainer(tmp_path / "part", make_team(2), callbacks=[StopAfter(3)], **settings).train()
    resumed = make_trainer(tmp_path / "part", make_team(2, seed=9), **settings)
    resumed.train(resume_from_checkpoint=True)
    for one, other in zip(final_state(resumed), final_state(whole), strict=True):
        torch.testing.assert_close(one, other, atol=0, rtol=0)


def test_a_stage_goes_on_with_the_groups_that_it_began_with(tmp_path):
    """In its middle the checkpoint has trunks alone, or all rollouts of its prompts."""
    settings = SETTINGS | {"resampling": "speculative", "scale_rewards": "none", "loss_type": "dr_grpo"}
    for group, other in (("turn", "rollout"), ("rollout", "turn")):
        folder = tmp_path / group
        run = {"advantage_group": group, "callbacks": [StopAfter(3)]}
        make_trainer(folder, make_team(2), **settings | run).train()
        resumed = make_trainer(folder, make_team(2), **settings, advantage_group=other)
        with pytest.raises(ValueError, match=f"for `advantage_group='{group}'`, and this run has '{other}'. Set it"):
            resumed.train(resume_from_checkpoint=True)
    resumed.train(resume_from_checkpoint=str(folder / "checkpoint-2"))  # at a stage's end
    assert resumed.state.global_step == 10


def test_a_run_decodes_what_its_groups_do_not_share(tmp_path):
    trainer = make_trainer(tmp_path, make_team(3), **BY_TURN, resampling="full", num_stages=2)
    trainer.train()
    logs = [log for log in trainer.state.log_history if "rollout/messages" in log]
    shared = [log["rollout/reused_fraction"] for log in logs]
    assert shared[::3] == [0, 0]  # the first speaker's groups part at once
    assert all(0.1 < one < other for one, other in zip(shared[1::3], shared[2::3], strict=True))
    assert all(log["rollout/messages"] == 24 for log in logs)


def test_a_group_of_one_message_measures_its_kl_and_the_team_on_trunks_alone(tmp_path, monkeypatch):
    fields = {"credit": "message", "router_kind": "random", "num_rounds": 2, "resampling": "full"}
    trainer, seen = make_trainer(tmp_path, make_team(2), **BY_TURN, **fields), []
    for member in trainer.members:
        score = member._generate_and_score_completions

        def watch(rows, rollouts=None, member=member, score=score):
            batch = score(rows, rollouts)
            seen.append((member, rollouts, batch))
            return batch

        monkeypatch.setattr(member, "_generate_and_score_completions", watch)
    trainer.train()
    logs = [log for log in trainer.state.log_history if "rollout/messages" in log]
    for (member, rollouts, batch), log in zip(seen, logs, strict=True):
        trunks = range(0, len(rollouts.transcripts), SIZE)
        own = [len(rollouts.transcripts[row].turns_of(member.name)) for row in trunks]
        assert batch["num_messages"][::SIZE].tolist() == own and batch["num_messages"].sum() == sum(own)
        assert batch["num_messages_in_batch"] == sum(own)
        assert log["team/reward"] == pytest.approx(member.returns[::SIZE].mean().item())
        for row, credited in enumerate(rollouts.credited.tolist()):
            trained = loss_mask(batch)[row].sum().item()
            turns = rollouts.transcripts[row].turns_of(member.name)
            said = 0 if credited < 0 else len(rollouts.transcripts[row].messages[turns[credited]].ids)
            assert trained == said


def test_what_an_update_knows_of_its_trunks_is_what_scoring_them_finds(tmp_path, monkeypatch):
    fields = {"resampling": "speculative", "num_rounds": 2, "trust_region_radius": 0.3, "learning_rate": 2e-2}
    trainer, compared = make_trainer(tmp_path, make_team(2), **BY_TURN, **fields), 0
    note = trainer.resampler.agent_was_updated

    def check(speaker, report, before):
        nonlocal compared
        note(speaker, report, before)
        stage = trainer.resampler.stage
        if stage.log_ratios is not None:
            scored = ScoredView(speaker, stage.rollouts, before, 8)
            own = scored.mask.bool()
            known = stage.log_ratios[:, : own.size(1)]
            assert len(stage.log_ratios) == len(stage.rollouts.transcripts) == 2
            torch.testing.assert_close(known[own], scored.log_ratios[own], atol=1e-5, rtol=0)
            compared += int(own.sum())

    monkeypatch.setattr(trainer.resampler, "agent_was_updated", check)
    trainer.train()
    assert compared > 0
