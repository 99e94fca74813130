import pytest
import torch
from tiny import enumerate_rollouts, make_team, make_trainer, replay

from trl_teamtr.maths.advantages import group_advantages
from trl_teamtr.maths.kl import k3_kl
from trl_teamtr.policy.scoring import loss_mask, sequence
from trl_teamtr.rollouts.rollouts import Rollouts
from trl_teamtr.trust_region.policy_kl import exact_token_kl
from trl_teamtr.trust_region.snapshot import Snapshot


ROWS = [{"prompt": p} for p in ("a", "ua") for _ in range(4)]


def prepare(trainer):
    """What `train` does before its first update, for a single update made by hand."""
    trainer._prepare_members(4, trainer.get_train_dataloader(), None)
    for member in trainer.members:
        member.model.train()
    return trainer


def test_batch_holds_the_advantages_of_equation_9(tmp_path):
    trainer = make_trainer(tmp_path, make_team(2), advantage_clip=1.0)
    trainer.model.train()
    batch = trainer._generate_and_score_completions(ROWS)
    rewards = trainer.returns
    assert rewards.std() > 0
    torch.testing.assert_close(batch["advantages"], group_advantages(rewards, 4, clip=1.0))
    assert list(trainer._logs["advantages"]) == pytest.approx(batch["advantages"].tolist())


def test_batch_counts_the_agents_own_messages(tmp_path):
    trainer = make_trainer(tmp_path, make_team(2), num_rounds=2)
    trainer.model.train()
    batch = trainer._generate_and_score_completions(ROWS)
    assert batch["num_messages"].tolist() == [2] * 8 and batch["num_messages_in_batch"] == 16
    assert batch["num_items_in_batch"] == loss_mask(batch).sum()


def test_rewards_get_the_answer_the_transcript_and_the_ids_of_the_last_message(tmp_path):
    seen = {}

    def reward(prompts, completions, completion_ids, transcripts, **kwargs):
        seen.update(prompts=prompts, completions=completions, ids=completion_ids, transcripts=transcripts)
        return [0.0] * len(prompts)

    trainer = make_trainer(tmp_path, make_team(2), reward_funcs=reward)
    trainer.model.train()
    rollouts = trainer.team.collect(ROWS)
    trainer.members[0]._generate_and_score_completions(ROWS, rollouts)
    last = [t.messages[-1] for t in rollouts.transcripts]
    assert seen["prompts"] == [row["prompt"] for row in ROWS]
    assert seen["completions"] == [m.text for m in last]
    assert seen["ids"] == [list(m.ids) for m in last]
    assert seen["transcripts"] == [t.as_dicts() for t in rollouts.transcripts]
    assert [m["name"] for m in seen["transcripts"][0]] == ["x", "y"]


def test_ratio_leaves_one_after_a_step(tmp_path):
    trainer = prepare(make_trainer(tmp_path, make_team(1), num_iterations=1, trust_region_radius=None))
    batch = trainer._generate_and_score_completions(ROWS)
    before = trainer._get_per_token_logps_and_entropies(trainer.model, *sequence(batch))[0].detach()
    report = trainer.update(batch)
    after = trainer._get_per_token_logps_and_entropies(trainer.model, *sequence(batch))[0].detach()
    ratio = ((after - before) * loss_mask(batch)).exp()
    assert report.inner_steps == 1 and report.kl_last_pass == 0
    assert (ratio - 1).abs().max() > 1e-2


@pytest.mark.parametrize("estimator", ["k3", "exact"])
def test_accepted_update_is_within_the_radius_by_a_measurement_of_its_own(tmp_path, estimator):
    trainer = prepare(
        make_trainer(tmp_path, make_team(1), learning_rate=0.1, trust_region_radius=0.02, kl_estimator=estimator)
    )
    batch = trainer._generate_and_score_completions(ROWS)
    mask = loss_mask(batch)
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    visible = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
    old_logits = trainer.model(ids, attention_mask=visible).logits.detach()
    report = trainer.update(dict(batch))
    new_logits = trainer.model(ids, attention_mask=visible).logits.detach()
    assert report.kl_proposed > 0.02 and report.backtracks > 0 and not report.rejected
    first = batch["prompt_ids"].size(1) - 1
    old, new = (logits[:, first:-1].log_softmax(-1) for logits in (old_logits, new_logits))
    if estimator == "exact":
        kl = ((old.exp() * (old - new)).sum(-1) * mask).sum() / 8
    else:
        log_ratio = (new - old).gather(2, batch["completion_ids"][..., None])[..., 0]
        kl = ((log_ratio.exp() - 1 - log_ratio) * mask).sum() / 8
    assert report.kl == pytest.approx(kl.item(), rel=1e-3, abs=1e-6)
    assert 0 < report.kl <= 0.02


def test_rejected_update_leaves_weights_and_optimizer_as_they_were(tmp_path):
    trainer = prepare(
        make_trainer(tmp_path, make_team(1), learning_rate=0.5, trust_region_radius=1e-8, max_backtracks=1)
    )
    weights = [p.clone() for p in trainer.model.parameters()]
    report = trainer.update(trainer._generate_and_score_completions(ROWS))
    assert report.rejected and report.kl == 0
    assert all(torch.equal(p, w) for p, w in zip(trainer.model.parameters(), weights, strict=True))
    assert trainer.optimizer.state_dict()["state"] == {}
    coef = trainer.controller.coef
    assert coef > trainer.args.kl_coef  # the controller still learns from it
    # The next update starts from there
    assert trainer.update(trainer._generate_and_score_completions(ROWS)).inner_steps >= 1


def test_early_stop_ends_the_passes_once_the_kl_leaves_the_radius(tmp_path):
    trainer = prepare(
        make_trainer(tmp_path, make_team(1), learning_rate=0.1, trust_region_radius=0.02, num_iterations=50)
    )
    report = trainer.update(trainer._generate_and_score_completions(ROWS))
    assert 1 <= report.inner_steps < 50 and report.kl_last_pass > 0.02


def test_without_a_radius_all_passes_are_made_and_nothing_is_undone(tmp_path):
    trainer = prepare(make_trainer(tmp_path, make_team(1), trust_region_radius=None, num_iterations=5))
    report = trainer.update(trainer._generate_and_score_completions(ROWS))
    assert report.inner_steps == 5 and report.backtracks == 0 and report.kl_last_pass > 0


def test_penalty_holds_the_policy_back(tmp_path):
    kls = []
    for coef in (0.0, 10.0):
        torch.manual_seed(0)
        trainer = prepare(
            make_trainer(
                tmp_path, make_team(1), num_iterations=8, trust_region_radius=1e6, kl_coef=coef, max_grad_norm=1e3
            )
        )
        kls.append(trainer.update(trainer._generate_and_score_completions(ROWS)).kl)
    assert 0 < kls[1] < 0.7 * kls[0]


def test_gradient_accumulation_does_not_change_an_update(tmp_path):
    weights = []
    for size, steps in ((8, 1), (4, 2), (2, 4)):
        trainer = prepare(
            make_trainer(
                tmp_path,
                make_team(2),
                per_device_train_batch_size=size,
                gradient_accumulation_steps=steps,
                kl_coef=1.0,
                trust_region_radius=0.5,
                optim="sgd",  # Adam divides by tiny gradients, and so enlarges rounding errors
                learning_rate=0.1,
            )
        )
        rollouts = replay(trainer, "ua", enumerate_rollouts(trainer, "ua")[:8])
        rows = [{"prompt": "ua"}] * 8
        trainer.update(trainer._generate_and_score_completions(rows, rollouts))
        weights.append(torch.cat([p.detach().flatten() for p in trainer.model.parameters()]))
    torch.testing.assert_close(weights[1], weights[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(weights[2], weights[0], atol=1e-5, rtol=0)


def test_agent_that_was_silent_makes_no_step(tmp_path):
    trainer = prepare(make_trainer(tmp_path, make_team(2)))
    trainer.team.rules.router = lambda t: "y" if not t.messages else None
    weights = [p.clone() for p in trainer.model.parameters()]
    report = trainer.update(trainer._generate_and_score_completions(ROWS))
    assert report.num_messages == 0 and report.inner_steps == 0
    assert all(torch.equal(p, w) for p, w in zip(trainer.model.parameters(), weights, strict=True))


def test_agent_that_spoke_in_some_rollouts_learns_from_those_alone(tmp_path):
    trainer = prepare(make_trainer(tmp_path, make_team(2)))
    trainer.team.rules.router = lambda t: None if t.messages else ("x" if t.prompt == "a" else "y")
    batch = trainer._generate_and_score_completions(ROWS)
    assert batch["num_messages"].tolist() == [1] * 4 + [0] * 4
    assert loss_mask(batch)[4:].sum() == 0
    report = trainer.update(batch)
    assert report.num_messages == 4 and report.inner_steps >= 1
    assert all(torch.isfinite(p).all() for p in trainer.model.parameters())


def test_nan_loss_is_an_error_that_names_the_agent(tmp_path):
    trainer = prepare(make_trainer(tmp_path, make_team(1)))
    batch = trainer._generate_and_score_completions(ROWS)
    batch["advantages"][0] = float("nan")
    weights = [p.clone() for p in trainer.model.parameters()]
    with pytest.raises(FloatingPointError, match="agent 'x'"):
        trainer.update(batch)
    assert all(torch.equal(p, w) for p, w in zip(trainer.model.parameters(), weights, strict=True))


def test_truncated_messages_can_be_masked(tmp_path):
    trainer = make_trainer(tmp_path, make_team(1), mask_truncated_completions=True)
    trainer.model.train()
    rollouts = trainer.team.collect(ROWS * 4)
    finished = [t.messages[-1].finished for t in rollouts.transcripts]
    batch = trainer._generate_and_score_completions(ROWS * 4, rollouts)
    assert {True, False} == set(finished)
    assert (loss_mask(batch).sum(1) > 0).tolist() == finished


@pytest.mark.parametrize("estimator", ["k3", "exact"])
def test_truncated_messages_that_the_loss_leaves_out_count_in_the_radius(tmp_path, estimator):
    """The KL of an accepted update is that of all its messages, as it is without the mask, and within the radius."""
    fields = {"mask_truncated_completions": True, "kl_estimator": estimator, "trust_region_radius": 0.05}
    trainer = prepare(make_trainer(tmp_path, make_team(1), **fields, learning_rate=3e-2, max_completion_length=2))
    rollouts = trainer.team.collect(ROWS * 4)
    batch = trainer._generate_and_score_completions(ROWS * 4, rollouts)
    assert {True, False} == {t.messages[-1].finished for t in rollouts.transcripts}
    before, speaker = Snapshot(trainer.engine), trainer.speaker
    everything = speaker.view_batch(rollouts.views["x"])
    old = speaker.token_logps(everything)
    report = trainer.update(batch, before)
    assert not report.rejected and report.num_messages == len(rollouts.transcripts)
    if estimator == "exact":
        kl = exact_token_kl(speaker.policy, everything, before, trainer.temperature)
    else:
        kl = k3_kl(old, speaker.token_logps(everything))
    expected = (kl * loss_mask(everything)).sum().item() / len(rollouts.transcripts)
    assert 0 < expected <= 0.05 and report.kl == pytest.approx(expected, rel=1e-4)


def test_an_update_without_a_finished_message_does_nothing(tmp_path):
    trainer = prepare(make_trainer(tmp_path, make_team(1), mask_truncated_completions=True, max_completion_length=1))
    rows = ROWS * 4
    rollouts = trainer.team.collect(rows)
    rows = [row for row, t in zip(rows, rollouts.transcripts, strict=True) if not t.messages[-1].finished][:4]
    kept = [i for i, t in enumerate(rollouts.transcripts) if not t.messages[-1].finished][:4]
    chosen = Rollouts([rollouts.transcripts[i] for i in kept], {"x": [rollouts.views["x"][i] for i in kept]})
    weights = [p.clone() for p in trainer.model.parameters()]
    report = trainer.update(trainer._generate_and_score_completions(rows, chosen))
    assert report.num_messages == 4 and report.inner_steps == 0
    assert all(torch.equal(p, w) for p, w in zip(trainer.model.parameters(), weights, strict=True))


def test_generation_that_drops_a_message_is_an_error(tmp_path, monkeypatch):
    """As continuous batching may, where a request failed: the others would go to the wrong rows."""
    trainer = make_trainer(tmp_path, make_team(2))
    generate = trainer.speaker.backend.generate
    monkeypatch.setattr(trainer.speaker.backend, "generate", lambda *args: generate(*args)[1:])
    with pytest.raises(RuntimeError, match="The backend of .x. was given 8 requests and wrote 7 messages"):
        trainer.team.collect(ROWS)
