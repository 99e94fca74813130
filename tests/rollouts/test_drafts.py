"""
Resampled rollouts have the law of the updated team: against its exact distribution, for policies that are chosen
independently of the drafts, and for drafts of drafts.

Block verification by itself is checked by enumeration: tests/maths/test_block_verification.py.
"""

import pytest
import torch
from draft_cases import WRONG_RULES, Case, count, decide_twice, key, p_value
from families import make_family
from tiny import make_team, make_tokenizer

from trl_teamtr import Agent
from trl_teamtr.rollouts import verification
from trl_teamtr.trust_region.update import UpdateReport


CASES = [
    (2, 1, "round_robin", "none", "speculative"),
    (3, 1, "round_robin", "temperature", "speculative"),
    (2, 2, "round_robin", "top_k", "speculative"),
    (2, 2, "random", "none", "speculative"),
    (3, 1, "random", "top_p", "speculative"),
    (3, 2, "text", "none", "speculative"),
    (2, 2, "text", "min_p", "speculative"),
    (3, 1, "round_robin", "none", "suffix"),
    (2, 2, "random", "none", "suffix"),
    (3, 2, "text", "top_k", "suffix"),
]


@pytest.mark.parametrize("agents, rounds, router, transform, mode", CASES)
def test_resampled_rollouts_have_the_law_of_the_updated_team(
    tmp_path, monkeypatch, agents, rounds, router, transform, mode
):
    case, total = Case(tmp_path, agents, rounds, router, transform, mode), 2000
    case.rollouts(total)
    kept = 0
    for number, agent in enumerate((0, agents - 1, 0)):  # the later ones meet drafts of drafts
        case.update(agent, seed=number)
        new, law = case.rollouts(total), case.law(monkeypatch)
        assert p_value(count(new), law) > 0.001 / len(CASES) / 3
        kept += new.tokens_kept
    assert kept > 0
    assert mode == "suffix" or new.tokens_decoded < 0.7 * sum(
        len(message.ids) for transcript in new.transcripts for message in transcript.messages
    )


KNOWN = [
    (2, 1, "round_robin", "none"),
    (3, 1, "random", "temperature"),
    (2, 2, "text", "none"),
    (2, 2, "random", "none"),
]


@pytest.mark.parametrize("agents, rounds, router, transform", KNOWN)
def test_so_they_have_where_the_update_knows_its_log_ratios(tmp_path, monkeypatch, agents, rounds, router, transform):
    case, total = Case(tmp_path, agents, rounds, router, transform, "speculative"), 2000
    case.rollouts(total)
    for number, agent in enumerate((0, agents - 1, 0)):
        case.update(agent, seed=number, known=True)
        new, law = case.rollouts(total), case.law(monkeypatch)
        assert p_value(count(new), law) > 0.001 / len(KNOWN) / 3


def test_only_messages_that_are_not_kept_whole_are_scored(tmp_path):
    scored = {}
    for known in (False, True):
        torch.manual_seed(0)
        case = Case(tmp_path, 2, 1, "round_robin", "none", "speculative")
        case.rollouts(1000)
        case.update(1, seed=0, known=known)
        scored[known] = case.rollouts(1000).tokens_scored
    assert 0 < scored[True] < 0.5 * scored[False]


def test_log_ratios_of_the_policy_say_nothing_of_truncated_messages(tmp_path):
    """With top-k the probabilities that decide are others: all drafts are scored."""
    scored = []
    for known in (False, True):
        torch.manual_seed(0)
        case = Case(tmp_path, 2, 1, "round_robin", "top_k", "speculative")
        case.rollouts(100)
        case.update(0, seed=0, known=known)
        scored.append(case.rollouts(100).tokens_scored)
    assert scored[0] == scored[1] > 0


def test_an_unchanged_policy_whose_log_ratios_are_known_is_not_scored(tmp_path):
    case = Case(tmp_path, 3, 2, "random", "none", "speculative")
    old = case.rollouts(200)
    case.update(1, seed=0, scale=0.0, known=True)
    new = case.rollouts(200)
    assert [key(t) for t in new.transcripts] == [key(t) for t in old.transcripts]
    assert new.tokens_decoded == new.tokens_scored == 0


@pytest.mark.parametrize("mode", ["full", "suffix", "speculative"])
def test_so_they_have_where_thoughts_are_private(tmp_path, monkeypatch, mode):
    """Of the first agent, "u" ends a thought: others read what follows, and nothing of a message that has no "u" and no end."""
    team = make_team(2)
    team[0].thinking_end = "u"
    case = Case(tmp_path, 2, 2, "text", "none", mode, team)
    old = case.rollouts(2000)
    messages = [message for transcript in old.transcripts for message in transcript.messages if message.agent == "x"]
    assert {(message.text, message.thought) for message in messages} >= {("", "aa"), ("a", ""), ("", ""), ("", "a")}
    for number, agent in enumerate((0, 1)):
        case.update(agent, seed=number, known=mode == "speculative")
        assert p_value(count(case.rollouts(2000)), case.law(monkeypatch)) > 0.001 / 6


def test_a_message_whose_author_reads_what_it_read_is_not_scored(tmp_path):
    """Only the thought of the first agent has changed in some rollouts: the answer of the second, which is not updated, stands."""
    team = make_team(2)
    team[0].thinking_end = "u"
    case = Case(tmp_path, 2, 1, "round_robin", "none", "speculative", team)
    old = case.rollouts(1000)
    case.update(0, seed=0, known=True)
    new, scored, hidden = case.rollouts(1000), 0, 0
    for row, (before, after) in enumerate(zip(old.transcripts, new.transcripts, strict=True)):
        views = [(each.views["x"][row], each.views["y"][row]) for each in (old, new)]
        changed = before.messages[0].ids != after.messages[0].ids
        if changed:  # its log-ratios say that it is cut, and it is scored to find where
            scored += 2 * len(views[0][0].context_of(0)) + 2 * len(before.messages[0].ids)
        contexts = [y.context_of(0) for _, y in views]
        if contexts[0] == contexts[1]:
            assert before.messages[1].ids == after.messages[1].ids
            hidden += changed
        else:
            scored += len(contexts[0]) + len(contexts[1]) + 2 * len(before.messages[1].ids)
    assert new.tokens_scored == scored and hidden > 5


def test_padding_does_not_change_the_law_of_a_model_with_learned_positions(tmp_path, monkeypatch):
    ids = {"vocab_size": 3, "eos_token_id": 1, "pad_token_id": 1, "bos_token_id": None, "initializer_range": 0.6}
    team = [Agent("xy"[i], make_family("gpt2", seed=i, **ids), processing_class=make_tokenizer()) for i in range(2)]
    case = Case(tmp_path, 2, 2, "round_robin", "none", "speculative", team)
    case.rollouts(2000)
    case.update(0, seed=0)
    assert p_value(count(case.rollouts(2000)), case.law(monkeypatch)) > 1e-3


@pytest.mark.parametrize("mode", ["full", "speculative"])
def test_several_batches_do_not_change_the_law(tmp_path, monkeypatch, mode):
    """Of rows that continue kept beginnings of different lengths, too: the cache has room for about a hundred of them."""
    row = 2 * 8 * 4 * 6  # keys and values of one layer, 8 wide, float32, of 6 tokens
    case = Case(tmp_path, 2, 2, "random", "none", mode, generation_cache_gib=100 * row / 2**30)
    calls = []
    for member in case.trainer.members:
        original = member.model.generate

        def counted(original=original, **kwargs):
            calls.append(len(kwargs["input_ids"]))
            return original(**kwargs)

        monkeypatch.setattr(member.model, "generate", counted)
    case.rollouts(1000)
    assert len(calls) > 20 and max(calls) < 200
    case.update(0, seed=0)
    assert p_value(count(case.rollouts(1000)), case.law(monkeypatch)) > 1e-3


def test_the_test_can_tell(tmp_path, monkeypatch):
    """Stale rollouts, a wrong acceptance rule, a wrong residual and a stale draft law each fail it."""

    def p_value_with(patch, updates=((0, 0),), mode="speculative", known=False):
        torch.manual_seed(0)
        case = Case(tmp_path, 2, 1, "round_robin", "none", mode)
        case.rollouts(8000)
        with monkeypatch.context() as context:
            patch(context)
            for agent, seed in updates:
                case.update(agent, seed, scale=0.6, known=known)
                rollouts = case.rollouts(8000)
        return p_value(count(rollouts), case.law(monkeypatch))

    assert p_value_with(lambda context: None) > 1e-3
    for patch in WRONG_RULES:
        assert p_value_with(patch) < 1e-4, patch.__name__
    assert p_value_with(lambda context: None, known=True) > 1e-3
    assert p_value_with(decide_twice, known=True) < 1e-4
    assert p_value_with(lambda context: None, mode="stale") < 1e-6


def test_unchanged_team_refuses_nothing(tmp_path):
    case = Case(tmp_path, 3, 2, "random", "top_p", "speculative")
    old = case.rollouts(200)
    case.update(1, seed=0, scale=0.0)  # verified, and found as it was
    new = case.rollouts(200)
    assert [key(t) for t in new.transcripts] == [key(t) for t in old.transcripts]
    assert new.tokens_decoded == 0 and new.tokens_scored > 0
    case.trainer.resampler.agent_was_updated(
        case.trainer.members[0].speaker, UpdateReport(inner_steps=2, rejected=True), None
    )
    again = case.rollouts(200)
    assert [key(t) for t in again.transcripts] == [key(t) for t in old.transcripts]
    assert again.tokens_decoded == again.tokens_scored == 0


def test_chunks_do_not_change_what_is_kept(tmp_path, monkeypatch):
    found = []
    for size in (2**25, 1):
        torch.manual_seed(0)
        case = Case(tmp_path, 2, 1, "round_robin", "none", "speculative")
        case.rollouts(50)
        case.update(0, seed=0, scale=0.0)
        monkeypatch.setattr(verification, "LOGITS_PER_CHUNK", size)
        found.append([key(t) for t in case.rollouts(50).transcripts])
    assert found[0] == found[1]
