"""What a swap does, by hand and by enumeration."""

import math

import pytest
import torch
from newcomers import make_newcomer
from tiny import make_model, make_team, make_tokenizer, next_logps

from trl_teamtr import Agent, Message, Team, Transcript
from trl_teamtr.agents.settings import SamplingSettings, SpeakingSettings
from trl_teamtr.replacement.demonstrations import Translator, as_said, views_of
from trl_teamtr.replacement.measuring import (
    Played,
    bounds_of,
    compare,
    estimate_kl,
    logps_by_turn,
    measure_cross_entropy,
    play,
    reason_against_bound,
)


PROMPT = "aau"


def teams_of(new: Agent, **sampling):
    settings = SpeakingSettings(SamplingSettings(max_completion_length=2, **sampling))
    x, y = make_team(2, 4)
    return Team.from_agents([x, y], settings), Team.from_agents([x, new], settings)


def same_kind(seed=9) -> Agent:
    return Agent("y", make_model(4, seed=seed), processing_class=make_tokenizer(4))


def says(text: str) -> Transcript:
    return Transcript(PROMPT, ("x", "y"), messages=[Message("y", text, (1,))])


def test_the_shock_is_paired_by_prompt():
    old = Played([says("a"), says("b"), says("c"), says("d")], torch.tensor([1.0, 0.5, 0.75, float("nan")]).double())
    new = Played([says("a"), says("b"), says("x"), says("y")], torch.tensor([0.5, 0.5, 0.5, 1.0]).double())
    returns, (mean, low, high), agreement = compare(old, new)
    differences = [0.5, 0.0, 0.25]
    half = 1.96 * 0.25 / math.sqrt(3)
    assert mean == pytest.approx(sum(differences) / 3) and (low, high) == pytest.approx((mean - half, mean + half))
    assert agreement == 0.5 and returns == pytest.approx((0.75, 0.625))
    assert compare(Played(old.talks, None), new) == (None, None, 0.5)
    one = Played(old.talks[:1], old.returns[:1])
    assert compare(one, Played(new.talks[:1], new.returns[:1]))[1] == (0.5, -math.inf, math.inf)


def test_samples_of_a_prompt_are_averaged():
    class Scorer:
        def score(self, rows, talks):
            return torch.arange(len(rows)).float()

    team, _ = teams_of(same_kind())
    played = play(team, [{"prompt": "a"}, {"prompt": "u"}], 3, 64, 0, Scorer())
    assert played.returns.tolist() == [1.0, 4.0] and len(played.talks) == 6


def test_cross_entropy_in_nats_per_message_and_bits_per_byte():
    """By the probabilities of the tokens of the new member's tokenizer, the end of the turn included."""
    _, swapped = teams_of(make_newcomer())
    new, talks = swapped.speakers[1], [says("aa"), says("u"), Transcript(PROMPT, ("x", "y"))]
    views = views_of(talks, new, Translator(new, True))
    nats = 0.0
    for view in views[:2]:
        for place, token in enumerate(view.completion_ids):
            nats -= next_logps(new.policy.model, view.prompt_ids + view.completion_ids[:place])[token].item()
    found, bits = measure_cross_entropy(new, talks, views)
    assert found == pytest.approx(nats / 2, rel=1e-5) and bits == pytest.approx(nats / math.log(2) / 3, rel=1e-5)
    by_turn = logps_by_turn(new, views)
    assert (
        by_turn.shape == (3, 1) and by_turn[2].item() == 0.0 and -by_turn.sum().item() == pytest.approx(nats, rel=1e-5)
    )


def messages_of(model, context):
    """Every message of at most two tokens, with its log-probability under `model`."""
    found = {}
    for i, first in enumerate(next_logps(model, context).tolist()):
        if i == 1:
            found[(i,)] = first
        else:
            later = next_logps(model, context + [i]).tolist()
            found |= {(i, j): first + second for j, second in enumerate(later)}
    return found


def test_the_estimate_of_the_kl_is_right():
    """Against the exact one, from all messages of the two members."""
    old, swapped = teams_of(same_kind())
    x, tokenizer = old.speakers[0], old.speakers[0].tokenizer
    start = tokenizer(f"{PROMPT}\n\nx:")["input_ids"]
    exact = 0.0
    for ids, logp in messages_of(x.policy.model, start).items():
        context = tokenizer(f"{PROMPT}\n\nx: {tokenizer.decode(ids, skip_special_tokens=True)}\n\ny:")["input_ids"]
        p, q = (messages_of(team.speakers[1].policy.model, context) for team in (old, swapped))
        exact += math.exp(logp) * sum(math.exp(p[m]) * (p[m] - q[m]) for m in p)
    talks = old.generate([PROMPT] * 600, batch_size=600, seed=0)
    views = views_of(talks, swapped.speakers[1], as_said)
    by_turn, (total, error) = estimate_kl(old.speakers[1], swapped.speakers[1], talks, views, True)
    assert by_turn == [pytest.approx(total)] and error < 0.3 * exact
    assert abs(total - exact) < 3 * error
    assert bounds_of(by_turn, 2.0) == pytest.approx((2 * math.sqrt(total / 2),) * 2)


def test_there_is_no_bound_where_the_kl_cannot_be_estimated():
    old, swapped = teams_of(make_newcomer())
    y, new = old.speakers[1], swapped.speakers[1]
    fine, cut = Message("y", "a", (2, 1)), Message("y", "aa", (2, 2), finished=False)

    def reason(message, old=y, new=new, same_vocabulary=False):
        talks = [Transcript(PROMPT, ("x", "y"), messages=[message])]
        return reason_against_bound(old, new, talks, views_of(talks, new, Translator(new, True)), same_vocabulary)

    assert reason(fine) is None
    assert "cut at the length limit" in reason(cut)
    assert "thoughts or calls" in reason(Message("y", "a", (2, 1), thought="b"))
    # "a" with another token for the end, such as one that is left out of the text
    assert "did not write its messages in the tokens" in reason(Message("y", "a", (2, 1, 1)))
    talks = [Transcript(PROMPT, ("x", "y"), messages=[fine])]
    assert reason_against_bound(y, new, talks, [None], False) == "some conversations cannot be shown to the new member"
    truncated, _ = teams_of(same_kind(), top_k=2)
    assert "truncated" in reason(fine, old=truncated.speakers[1])
    _, twin = teams_of(same_kind())
    assert reason(cut, new=twin.speakers[1], same_vocabulary=True) is None  # their ids are the same
