"""Verification of messages: what an unchanged policy keeps, what processes without drafts do, what it costs."""

import torch
from tiny import make_team, make_trainer

from trl_teamtr.rollouts import verification
from trl_teamtr.rollouts.verification import Draft, check_drafts, count_scored
from trl_teamtr.trust_region.snapshot import Snapshot


def make_speaker(folder):
    return make_trainer(folder, make_team(1), max_completion_length=4).speaker


DRAFTS = [Draft([0, 2], [0, 2], [2, 0, 1]), Draft([2], [2], [0, 0, 0, 0]), Draft([0], [0], [1])]


def test_an_unchanged_policy_in_unchanged_contexts_refuses_nothing(tmp_path):
    verdicts = check_drafts(make_speaker(tmp_path), DRAFTS, None)
    assert [kept for kept, _ in verdicts] == [3, 4, 1]


def test_no_drafts_are_no_verdicts(tmp_path):
    assert check_drafts(make_speaker(tmp_path), [], None) == []


def test_another_context_or_policy_changes_what_is_kept(tmp_path):
    trainer = make_trainer(tmp_path, make_team(1), max_completion_length=4)
    many = [Draft([0, 2], [2, 2, 2, 0], [2, 0, 1])] * 200
    torch.manual_seed(0)
    kept = [length for length, _ in check_drafts(trainer.speaker, many, None)]
    assert min(kept) < 3 == max(kept)
    before = Snapshot(trainer.engine, with_optimizer=False)
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape)
    kept = [length for length, _ in check_drafts(trainer.speaker, DRAFTS * 70, before)]
    assert len(kept) == 210 and min(kept) < 3


def test_chunks_of_one_row_give_what_one_chunk_gives(tmp_path, monkeypatch):
    speaker = make_speaker(tmp_path)
    whole = [kept for kept, _ in check_drafts(speaker, DRAFTS, None)]
    monkeypatch.setattr(verification, "LOGITS_PER_CHUNK", 1)
    assert [kept for kept, _ in check_drafts(speaker, DRAFTS, None)] == whole


def test_cost_is_both_forward_passes():
    assert count_scored(DRAFTS) == (2 + 2 + 6) + (1 + 1 + 8) + (1 + 1 + 2)
