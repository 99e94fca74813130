"""Alignment: its gradient is that of the KL, and its options do what they say."""

import pytest
import torch
from newcomers import ROWS, make_newcomer
from tiny import make_model, make_team, make_tokenizer, next_logps

from trl_teamtr import Agent, Message, Team, Transcript
from trl_teamtr.agents.settings import SamplingSettings, SpeakingSettings
from trl_teamtr.policy.making import load_members
from trl_teamtr.replacement.alignment import DistillationTrainer, Teacher, _make_args, _TemperedLoss, align
from trl_teamtr.replacement.demonstrations import Translator, as_dataset, as_paired_dataset, as_said, view_of, views_of


PROMPT = "aau"


def all_messages(model, context) -> list[tuple[tuple[int, ...], float]]:
    """Every message of at most two tokens, which "." ends, with its probability."""
    found = []
    for i, first in enumerate(next_logps(model, context).exp().tolist()):
        if i == 1:
            found.append(((i,), first))
        else:
            found += [((i, j), first * p) for j, p in enumerate(next_logps(model, context + [i]).exp().tolist())]
    return found


def speakers_of(new: Agent, temperature: float = 1.0):
    """The old member of a team of two, and a new one in its place, with a module of its own over the weights of its agent."""
    settings = SpeakingSettings(SamplingSettings(max_completion_length=2, temperature=temperature))
    x, y = make_team(2, 4)
    old = Team.from_agents([x, y], settings)
    (loaded,) = load_members([new], settings)
    return old.speakers[1], Team.from_agents([x, loaded], settings).speakers[1], loaded


def gradient_of(loss, model) -> torch.Tensor:
    return torch.cat([grad.flatten() for grad in torch.autograd.grad(loss, list(model.parameters()))])


def test_the_gradient_of_the_cross_entropy_is_that_of_the_kl():
    """Over all messages in a context, each weighted by its probability; what the KL adds does not depend on the new member."""
    old, new, member = speakers_of(Agent("y", make_model(4, seed=9), processing_class=make_tokenizer(4)))
    said = Message("x", "a", (2, 1))
    context = view_of(
        Transcript(PROMPT, ("x", "y"), messages=[said, Message("y", "a", (2, 1))]), old, as_said
    ).prompt_ids
    model = new.policy.model.double()
    messages = all_messages(old.policy.model.double(), context)
    assert sum(p for _, p in messages) == pytest.approx(1)
    cross_entropy, kl = torch.zeros((), dtype=torch.double), torch.zeros((), dtype=torch.double)
    for ids, p in messages:
        message = Message("y", old.tokenizer.decode(ids, skip_special_tokens=True), ids, ids[-1] == 1)
        talk = Transcript(PROMPT, ("x", "y"), messages=[said, message])
        (row,) = as_dataset([view_of(talk, new, Translator(new, True))])
        assert row["input_ids"] == context + list(ids) and row["labels"] == [-100] * len(context) + list(ids)
        logits = model(torch.tensor([row["input_ids"]])).logits
        cross_entropy = cross_entropy + p * _TemperedLoss(1.0)(
            type("Output", (), {"logits": logits}), torch.tensor([row["labels"]]), num_items_in_batch=1
        )
    # Lemma 3.2: token by token
    for beginning in ([], [0], [2], [3]):
        at = torch.tensor([context + beginning])
        p = old.policy.model(at).logits[0, -1].log_softmax(-1).detach()
        q = model(at).logits[0, -1].log_softmax(-1)
        reached = 1.0 if not beginning else next_logps(old.policy.model, context)[beginning[0]].exp().item()
        kl = kl + reached * (p.exp() * (p - q)).sum()
    expected, found = gradient_of(kl, model), gradient_of(cross_entropy, model)
    assert expected.norm() > 1e-2
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    # And the difference of the values is the entropy of the old member
    entropy = -sum(p * torch.tensor(p).log().item() for _, p in messages)
    assert cross_entropy.item() - kl.item() == pytest.approx(entropy, abs=1e-4)


def test_across_tokenizers_the_cross_entropy_only_enlarges_the_kl():
    """The new member may say "aa" in two ways; its probability is at least that of the one that is demonstrated."""
    _, new, _ = speakers_of(make_newcomer())
    message = Message("y", "aa", (2, 2), finished=False)
    view = view_of(
        Transcript(PROMPT, ("x", "y"), messages=[Message("x", "a", (2, 1)), message]), new, Translator(new, True)
    )
    assert view.sampled_ids == [0]
    model, context = new.policy.model, view.prompt_ids
    first = next_logps(model, context)
    as_one = first[0].exp()
    as_two = first[3].exp() * next_logps(model, [*context, 3])[3].exp()
    assert as_one < as_one + as_two


def test_a_loss_at_the_temperature_of_the_member():
    logits, labels = torch.randn(2, 4, 5), torch.tensor([[-100, -100, 3, 1], [-100, 2, 4, -100]])
    output = type("Output", (), {"logits": logits})
    logps = (logits / 0.7).log_softmax(-1)
    expected = -(logps[0, 1, 3] + logps[0, 2, 1] + logps[1, 0, 2] + logps[1, 1, 4])
    torch.testing.assert_close(_TemperedLoss(0.7)(output, labels), expected / 4)
    torch.testing.assert_close(_TemperedLoss(0.7)(output, labels, num_items_in_batch=2), expected / 2)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_a_member_is_aligned_at_the_temperature_at_which_it_speaks(make_args, temperature):
    """The held-out loss, in nats per token, is what the speaker's own scores say."""
    _, new, member = speakers_of(Agent("y", make_model(4, seed=9), processing_class=make_tokenizer(4)), temperature)
    team = Team.from_agents(make_team(2, 4), SpeakingSettings(SamplingSettings(max_completion_length=2)))
    talks = team.generate(ROWS, seed=0)
    views = views_of(talks, new, Translator(new, True))
    cost = align(member, new, views[8:], views[:8], make_args(num_train_epochs=2))
    batch = new.view_batch(views[:8])
    mask = batch["message_numbers"] >= 0
    loss = -(new.token_logps(batch) * mask).sum() / mask.sum()
    assert min(value for _, value in cost.losses) == pytest.approx(loss.item(), abs=2e-3)
    assert cost.losses[-1][1] < cost.losses[0][1]


def test_training_stops_once_held_out_probes_do_not_gain_and_keeps_the_best(make_args):
    old, new, member = speakers_of(Agent("y", make_model(4, seed=9), processing_class=make_tokenizer(4)))
    team = Team.from_agents(make_team(2, 4), SpeakingSettings(SamplingSettings(max_completion_length=2)))
    talks = team.generate(ROWS, seed=0)
    views = views_of(talks, new, Translator(new, True))
    args = make_args(num_train_epochs=200, eval_steps=2, early_stopping_patience=2, learning_rate=0.05)
    cost = align(member, new, views[8:], views[:8], args)
    assert cost.steps < 200 * 4 and cost.steps == cost.losses[-1][0]
    best = min(value for _, value in cost.losses)
    assert best not in [value for _, value in cost.losses[-2:]]
    batch = new.view_batch(views[:8])
    mask = batch["message_numbers"] >= 0
    assert -(new.token_logps(batch) * mask).sum().item() / mask.sum().item() == pytest.approx(best, abs=2e-3)


def test_the_distillation_loss_is_the_kl_of_the_distributions(tmp_path, make_args):
    """By hand: at each token of the old member's messages, over the vocabulary, at both temperatures."""
    model, tokenizer = make_model(4, seed=9), make_tokenizer(4)
    old, new, _ = speakers_of(Agent("y", model, processing_class=tokenizer), temperature=0.7)
    talks = Team.from_agents(make_team(2, 4), SpeakingSettings(SamplingSettings(max_completion_length=2))).generate(
        ROWS[:6], seed=0
    )
    own, theirs = views_of(talks, new, as_said), views_of(talks, old, as_said)
    data = as_paired_dataset(own, theirs)
    args = _make_args(str(tmp_path), 6, make_args(), paired=True)
    trainer = DistillationTrainer(model, (data, data), old, 0.7, args=args, processing_class=tokenizer)
    total = count = 0
    for view in own:
        for place in range(len(view.completion_ids)):
            if view.mask[place]:
                before = view.context[: len(view.prompt_ids) + place]
                p, q = (next_logps(each, before, 0.7) for each in (old.policy.model, model))
                total, count = total + (p.exp() * (p - q)).sum().item(), count + 1
    assert trainer.evaluate()["eval_loss"] == pytest.approx(total / count, rel=1e-4)


def test_a_teacher_is_not_trained(make_args):
    old, new, member = speakers_of(Agent("y", make_model(4, seed=9), processing_class=make_tokenizer(4)))
    talks = Team.from_agents(make_team(2, 4), SpeakingSettings(SamplingSettings(max_completion_length=2))).generate(
        ROWS, seed=0
    )
    own, theirs = views_of(talks, new, as_said), views_of(talks, old, as_said)
    before = [parameter.clone() for parameter in old.policy.model.parameters()]
    cost = align(member, new, own[8:], own[:8], make_args(), Teacher(old, theirs[8:], theirs[:8]))
    assert cost.losses[-1][1] < 0.8 * cost.losses[0][1] and cost.tokens > 0
    assert all(torch.equal(a, b) for a, b in zip(before, old.policy.model.parameters(), strict=True))
