"""Verification of messages: what an unchanged policy keeps, what processes without drafts do, what it costs."""

import pytest
import torch
from peft import LoraConfig
from tiny import make_team, make_trainer

from trl_teamtr.maths import block_verification
from trl_teamtr.maths.block_verification import keeping_probabilities
from trl_teamtr.rollouts import verification
from trl_teamtr.rollouts.verification import Draft, check_drafts, count_scored
from trl_teamtr.trust_region import two_policies
from trl_teamtr.trust_region.engines import PlainEngine
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


UNEVEN = [
    Draft([0, 2], [2, 2, 2, 0], [2, 0, 1]),
    Draft([2], [2, 0], [0, 0, 0, 0]),
    Draft([0] * 9, [0] * 7, [2, 2, 0, 2, 2, 0, 2, 2, 0, 1]),
    Draft([0], [0], [1]),
    Draft([2, 0, 0], [0, 0], [2, 2]),
]


@pytest.fixture(params=["weights", "adapter"])
def moved(request, tmp_path):
    """A trainer in float64 whose policy has moved, the policy before, and how often its weights were put in."""
    fields = {"top_k": 2, "temperature": 0.8, "max_completion_length": 10}
    if request.param == "adapter":
        fields["peft_config"] = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj", "down_proj"])
    trainer = make_trainer(tmp_path, make_team(1), **fields)
    trainer.model.double()
    scale = 0.3 if "peft_config" in fields else 0.05
    before, entered, policy_before = Snapshot(trainer.engine, with_optimizer=False), [], Snapshot.current_policy
    with torch.no_grad():
        for parameter in before._engine.weights:
            parameter += scale * torch.randn(parameter.shape, dtype=torch.float64)
    before.current_policy = lambda: (entered.append(1), policy_before(before))[1]
    return trainer, before, entered


def reference(trainer, draft, before):
    """Probabilities of a draft alone, from all logits of one forward pass of each policy."""

    def law(context):
        ids = torch.tensor([context + draft.ids])
        with torch.no_grad():
            logits = trainer.model(ids, attention_mask=torch.ones_like(ids)).logits[:, len(context) - 1 : -1] / 0.8
        return logits.masked_fill(logits < logits.topk(2).values[..., -1:], -torch.inf).log_softmax(-1)

    new = law(draft.new_context)
    with before.current_policy():
        old = law(draft.old_context)
    return keeping_probabilities(old, new, torch.tensor([draft.ids]), torch.tensor([len(draft.ids)]))[0][0]


@pytest.mark.parametrize("logits, tokens", [(2**25, 2**14), (1, 1), (6, 2**14), (9, 24)])
@pytest.mark.parametrize("on_host", [None, 2**33, 1], ids=["layers", "logits on the host", "few of them"])
def test_probabilities_are_those_of_whole_passes_whatever_is_in_memory_together(
    moved, monkeypatch, logits, tokens, on_host
):
    trainer, before, entered = moved
    expected = {tuple(draft.ids): reference(trainer, draft, before) for draft in UNEVEN}
    monkeypatch.setattr(verification, "LOGITS_PER_CHUNK", logits)
    monkeypatch.setattr(verification, "TOKENS_PER_PASS", tokens)
    monkeypatch.setattr(two_policies, "LOGITS_ON_HOST", on_host or 2**33)
    monkeypatch.setattr(PlainEngine, "holds_layers", on_host is None)
    found, groups = {}, []

    def watched(old, new, ids, lengths, positions):
        keep, running = keeping_probabilities(old, new, ids, lengths, positions)
        assert keep.dtype == torch.float64 and positions * len(ids) * 3 <= max(logits, 3 * len(ids))
        groups.append(len(ids))
        for own, row, length in zip(ids.tolist(), keep, lengths.tolist(), strict=True):
            found[tuple(own[:length])] = row[: length + 1]
        return keep, running

    monkeypatch.setattr(block_verification, "keeping_probabilities", watched)
    entered.clear()
    verdicts = check_drafts(trainer.speaker, UNEVEN, before)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    assert any(((keep > 0.01) & (keep < 0.99)).any() for keep in expected.values())
    assert all(kept <= len(draft.ids) for draft, (kept, _) in zip(UNEVEN, verdicts, strict=True))
    assert groups == {2**25: [5], 1: [1] * 5, 6: [2, 2, 1], 9: groups}[logits] and (logits != 9 or len(groups) > 2)
    stored = on_host == 1 and trainer.speaker.policy.model.get_output_embeddings().weight.requires_grad
    assert len(entered) == (len(groups) if stored else 1)


def test_verdicts_are_in_the_order_of_the_drafts(tmp_path, monkeypatch):
    monkeypatch.setattr(verification, "TOKENS_PER_PASS", 30)
    drafts = [Draft(d.old_context, d.old_context, d.ids) for d in UNEVEN] * 3
    trainer = make_trainer(tmp_path, make_team(1), max_completion_length=10)
    assert [kept for kept, _ in check_drafts(trainer.speaker, drafts, None)] == [len(d.ids) for d in drafts]


@pytest.mark.parametrize("count", [0, 1, 5])
def test_processes_with_other_drafts_make_equally_many_calls(tmp_path, monkeypatch, count):
    """Another process has four passes, in which it computes logits up to ten times: this one makes as many calls."""
    trainer = make_trainer(tmp_path, make_team(1), max_completion_length=10)
    calls = []
    trainer.model.lm_head.register_forward_hook(lambda *args: calls.append(1))
    monkeypatch.setattr(verification, "LOGITS_PER_CHUNK", 6)
    monkeypatch.setattr(verification, "largest", lambda accelerator, numbers: [4])
    monkeypatch.setattr(two_policies, "largest", lambda accelerator, numbers: [10, 9, 5, 5])
    assert len(check_drafts(trainer.speaker, UNEVEN[:count], None)) == count
    assert len(calls) == 2 * 4 + 2 * (10 + 9 + 5 + 5 + 4)
