"""Agents that read their earlier messages without thoughts: what is scored of a rollout, and the law of resampled ones."""

import dataclasses

import pytest
import torch
from draft_cases import Case, count, p_value
from tiny import enumerate_rollouts, make_team, make_trainer, replay, view_batch
from tool_teams import Dial, Lots, ToolCase, results_of, tool_team
from tool_teams import p_value as tool_p_value

from trl_teamtr import Team
from trl_teamtr.conversation.view import View
from trl_teamtr.policy.scoring import message_mask, sequence
from trl_teamtr.rollouts.rollouts import replay as replay_transcripts


PROMPT = "ua"


def forgetful_team():
    """Of two agents; "u" ends a thought of the first, which it does not keep."""
    team = make_team(2)
    team[0].thinking_end, team[0].keep_thoughts = "u", False
    return team


def test_only_the_last_message_of_a_rollout_is_scored(tmp_path):
    trainer = make_trainer(
        tmp_path, forgetful_team(), num_rounds=2, radius_schedule="horizon", trust_region_radius=0.05
    )
    rollouts = enumerate_rollouts(trainer, PROMPT)
    member, played = trainer.members[0], replay(trainer, PROMPT, rollouts)
    batch = view_batch(member, played)
    with torch.no_grad():
        logps = member._get_per_token_logps_and_entropies(member.model, *sequence(batch))[0]
    scored = (logps * message_mask(batch)).sum(dim=1)
    expected = torch.tensor([rollout.logps[2] for rollout in rollouts])  # x, y, x, y
    torch.testing.assert_close(scored, expected, atol=1e-4, rtol=0)
    assert batch["num_messages"].tolist() == [1] * len(rollouts)
    assert member.turn_radii.count(batch).tolist() == [0, len(rollouts)]
    # The other agent keeps what it said: both of its messages are scored
    other = trainer.members[1]
    assert other.speaker.view_batch(played.views["y"])["num_messages"].tolist() == [2] * len(rollouts)


def nightly(*case):
    return pytest.param(*case, marks=pytest.mark.nightly)


CASES = [
    ("speculative", True, (0,)),
    nightly("speculative", True, (1, 0)),
    nightly("speculative", False, (0, 1)),
    nightly("suffix", False, (0, 1)),
    nightly("full", False, (0, 1)),
]


@pytest.mark.parametrize("mode, known, updated", CASES)
def test_resampled_rollouts_have_the_law_of_the_updated_team(tmp_path, monkeypatch, mode, known, updated):
    case = Case(tmp_path, 2, 2, "round_robin", "none", mode, forgetful_team())
    case.rollouts(2000)
    for number, agent in enumerate(updated):
        case.update(agent, seed=number, known=known)
        new, law = case.rollouts(2000), case.law(monkeypatch)
        assert p_value(count(new), law) > 0.001 / len(CASES) / 2
        assert (new.tokens_kept > 0) == (mode == "speculative" or (mode, agent) == ("suffix", 1))


@pytest.mark.nightly
def test_a_draft_in_the_context_of_another_message_has_another_law(tmp_path, monkeypatch):
    """As if the earlier message had been sampled where the later one was."""
    monkeypatch.setattr(View, "context_of", lambda view, number, segment=0: view.prompt_ids)
    torch.manual_seed(0)
    case = Case(tmp_path, 2, 2, "round_robin", "none", "speculative", forgetful_team())
    case.rollouts(8000)
    case.update(0, seed=0, scale=0.3)
    assert p_value(count(case.rollouts(8000)), case.law(monkeypatch)) < 1e-4


def test_a_run_trains_and_is_saved_with_it(tmp_path):
    trainer = make_trainer(tmp_path / "run", forgetful_team(), num_rounds=2, save_strategy="no")
    trainer.train()
    trainer.save_model()
    team = Team.from_pretrained(str(tmp_path / "run"))
    assert [speaker.agent.keep_thoughts for speaker in team.speakers] == [False, True]
    talk = team.chat(PROMPT, seed=0)
    assert len(talk.messages) == 4 and team.generate([PROMPT], seed=0) == [talk]
    rollouts = team.collect([{"prompt": PROMPT}] * 4)
    transcripts = [dataclasses.replace(each, messages=list(each.messages)) for each in rollouts.transcripts]
    again = replay_transcripts(transcripts, team.speakers)  # as a resumed run does
    for view, other in zip(rollouts.views["x"], again.views["x"], strict=True):
        assert len(view.earlier) == 1 and view.num_messages == 2
        assert [view.context_of(number) for number in (0, 1)] == [other.context_of(number) for number in (0, 1)]
        assert (view.context, view.mask) == (other.context, other.mask)


@pytest.mark.parametrize(
    "world, mode", [nightly(Dial, "speculative"), nightly(Lots, "speculative"), nightly(Dial, "suffix")]
)
def test_so_they_have_with_calls_in_the_history(tmp_path, world, mode):
    """One agent speaks twice, and reads the calls of its first message as its template writes them."""
    torch.manual_seed(0)
    case = ToolCase(tmp_path, world, mode, team=tool_team(1, keep_thoughts=False), num_rounds=2)
    views = case.rollouts(2000).views["x"]
    assert all(len(view.earlier) == 1 for view in views)
    assert any(0 in view.earlier[0].mask for view in views)  # some have called in their first message
    for seed in (0, 1):
        case.update(0, seed=seed, known=mode == "speculative", scale=0.2)
        new = case.rollouts(2000)
        law = case.law()
        assert min(tool_p_value(new.transcripts, law), tool_p_value(new.transcripts, law, results_of)) > 1e-3 / 6
        assert (new.tokens_kept > 0) == (mode == "speculative")
