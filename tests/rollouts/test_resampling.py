"""What each mode of resampling writes, keeps and saves."""

import pytest
import torch
from resuming import SETTINGS, StopAfter, final_state
from tiny import make_config, make_team, make_trainer

from trl_teamtr import Agent
from trl_teamtr.options.team_options import RESAMPLINGS
from trl_teamtr.rollouts.resampling import KEPT, RESAMPLED, Resampler
from trl_teamtr.rollouts.rollouts import replay


MODES = ["full", "suffix", "speculative", "stale", "importance"]
MOVING = {"learning_rate": 2e-2, "trust_region_radius": 0.3, "num_stages": 2, "logging_steps": 1}


def run(folder, mode, agents=3, **fields):
    trainer = make_trainer(folder, make_team(agents), resampling=mode, **MOVING | fields)
    trainer.train()
    return trainer, [log for log in trainer.state.log_history if "rollout/messages" in log]


def test_full_writes_everything_anew(tmp_path):
    _, logs = run(tmp_path, "full")
    assert {log["rollout/reused_fraction"] for log in logs} == {0.0}
    assert {log["rollout/tokens_scored"] for log in logs} == {0}


def test_stale_writes_at_the_beginning_of_a_stage_only(tmp_path):
    _, logs = run(tmp_path, "stale")
    assert [log["rollout/tokens_decoded"] > 0 for log in logs] == [True, False, False] * 2
    assert [log["rollout/reused_fraction"] for log in logs] == [0, 1, 1] * 2
    assert len({log["reward"] for log in logs[:3]}) == 1


def test_resample_every_second_update(tmp_path):
    _, logs = run(tmp_path, "full", resample_every=2)
    assert [log["rollout/tokens_decoded"] > 0 for log in logs] == [True, False, True] * 2
    assert [log["rollout/reused_fraction"] for log in logs] == [0, 1, 0] * 2
    for mode, every in (("stale", 2), ("speculative", 3), ("full", 0)):
        with pytest.raises(ValueError, match="`resample_every` is .* use `resampling='full'`"):
            make_config(tmp_path, resampling=mode, resample_every=every)


def test_joint_updates_are_those_of_stale_ones(tmp_path, monkeypatch):
    """All agents updated from the team at the start of the stage, on its rollouts: done by hand, beside "stale"."""
    monkeypatch.setattr("trl_teamtr.agent_trainer.shuffle_sequence_dict", lambda batch: batch)
    settings = {"learning_rate": 2e-2, "trust_region_radius": 0.05}
    stale = make_trainer(tmp_path / "stale", make_team(3), resampling="stale", **settings)
    seen, provide = [], stale.resampler.rollouts
    monkeypatch.setattr(stale.resampler, "rollouts", lambda rows: seen.append((rows, provide(rows))) or seen[-1][1])
    stale.train()

    def weights(trainer):
        return [[param.detach().clone() for param in member.model.parameters()] for member in trainer.members]

    joint = make_trainer(tmp_path / "joint", make_team(3), resampling="joint", **settings)
    joint._init_training_state(3, 3, 1, None, None)
    joint._prepare_members(3, joint.get_train_dataloader(), None)
    start, after = weights(joint), []
    rows, rollouts = seen[0]
    again = replay(rollouts.transcripts, joint.team.speakers)
    for number, agent in enumerate(joint.members):
        joint._begin_update(agent, rows)
        batch = agent._generate_and_score_completions(rows, again)
        with joint.residency.training(agent):
            agent.update(batch)
        after.append(weights(joint)[number])
        for param, before in zip(agent.model.parameters(), start[number], strict=True):
            param.data.copy_(before)  # the next agent is updated beside this one as it was
    for member, own in zip(stale.members, after, strict=True):
        for param, expected in zip(member.model.parameters(), own, strict=True):
            torch.testing.assert_close(param.detach(), expected, atol=0, rtol=0)
    assert any(not torch.equal(a, b) for a, b in zip(after[2], start[2], strict=True))
    # And the mode itself
    mode = make_trainer(tmp_path / "mode", make_team(3), resampling="joint", **settings)
    torch.manual_seed(0)
    mode.train()
    other = make_trainer(tmp_path / "other", make_team(3), resampling="stale", **settings)
    torch.manual_seed(0)
    other.train()
    for a, b in zip(weights(mode), weights(other), strict=True):
        torch.testing.assert_close(a, b, atol=0, rtol=0)


@pytest.mark.parametrize("order, kept", [("sequential", [0, 0, 1]), ("reversed", [0, 2, 1])])
def test_suffix_keeps_what_was_said_before_the_updated_agent(tmp_path, order, kept, monkeypatch):
    trainer = make_trainer(tmp_path, make_team(3), resampling="suffix", update_order=order, **MOVING)
    rollouts, original = [], trainer.resampler.rollouts
    monkeypatch.setattr(trainer.resampler, "rollouts", lambda rows: rollouts.append(original(rows)) or rollouts[-1])
    trainer.train()
    for stage in (rollouts[:3], rollouts[3:]):
        for before, after, number in zip([None, *stage], stage, kept, strict=False):
            same = [] if before is None else list(zip(before.transcripts, after.transcripts, strict=True))
            assert all(a.messages[:number] == b.messages[:number] for a, b in same)
            assert after.tokens_kept == sum(len(m.ids) for t in after.transcripts for m in t.messages[:number])
        decoded = sum(r.tokens_decoded + r.tokens_kept for r in stage)
        assert decoded == sum(len(m.ids) for r in stage for t in r.transcripts for m in t.messages)


def test_speculative_decodes_a_fraction_and_learns_like_the_others(tmp_path):
    _, logs = run(tmp_path, "speculative", trust_region_radius=0.01)
    first, later = logs[::3], [log for i, log in enumerate(logs) if i % 3]
    assert all(log["rollout/reused_fraction"] == 0 and log["rollout/tokens_scored"] == 0 for log in first)
    assert all(log["rollout/reused_fraction"] > 0.8 for log in later)
    assert any(log["rollout/tokens_scored"] > 0 for log in later)
    assert all(log["rollout/tokens_decoded"] < 0.3 * first[0]["rollout/tokens_decoded"] for log in later)


@pytest.mark.parametrize("mode", ["suffix", "speculative"])
def test_log_probs_of_resampled_messages_are_those_of_a_fresh_scoring_pass(tmp_path, mode, monkeypatch):
    monkeypatch.setattr("trl_teamtr.agent_trainer.shuffle_sequence_dict", lambda batch: batch)
    monkeypatch.setattr("trl_teamtr.agent_trainer.split_tensor_dict", lambda batch, parts: [batch])
    trainer, compared = make_trainer(tmp_path, make_team(3), resampling=mode, num_rounds=2, **MOVING), []

    def watch(agent, update):
        def call(batch, before, *due):
            ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
            mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
            length = batch["completion_ids"].size(1)
            with torch.no_grad():
                logps = agent.model(input_ids=ids, attention_mask=mask).logits[:, -length - 1 : -1].log_softmax(-1)
            fresh = logps.gather(-1, ids[:, -length:, None]).squeeze(-1)
            report = update(batch, before, *due)
            own = (batch["completion_mask"] * batch["tool_mask"]).bool()
            torch.testing.assert_close(batch["old_per_token_logps"][own], fresh[own], atol=1e-5, rtol=0)
            compared.append(int(own.sum()))
            return report

        return call

    for member in trainer.members:
        monkeypatch.setattr(member, "update", watch(member, member.update))
    trainer.train()
    assert len(compared) == 6 and min(compared) > 0


@pytest.mark.parametrize("mode", [*MODES, "every 2"])
@pytest.mark.parametrize("updates", [1, 5])
def test_resumed_run_equals_one_that_was_never_stopped(tmp_path, mode, updates):
    agents = 2
    settings = SETTINGS | {"resampling": mode, "num_stages": 3, "learning_rate": 2e-2}
    if mode == "every 2":
        agents, settings = 3, settings | {"resampling": "full", "resample_every": 2}
    whole = make_trainer(tmp_path / "whole", make_team(agents), **settings)
    whole.train()
    make_trainer(tmp_path / "part", make_team(agents), callbacks=[StopAfter(updates)], **settings).train()
    resumed = make_trainer(tmp_path / "part", make_team(agents, seed=9), **settings)
    resumed.train(resume_from_checkpoint=True)
    for a, b in zip(final_state(resumed), final_state(whole), strict=True):
        torch.testing.assert_close(a, b, atol=0, rtol=0)


def test_default_is_the_cheapest_exact_mode(tmp_path):
    def mode(team, **fields):
        return make_trainer(tmp_path, team, kl_estimator="exact", **fields).resampler.mode

    assert mode(make_team(2)) == "speculative"
    assert mode(make_team(2), top_p=0.9) == "speculative"
    assert mode(make_team(2), resampling="full") == "full"
    # Nothing to reuse, or a law that verification does not know
    assert mode(make_team(1)) == "full"
    assert mode(make_team(2), repetition_penalty=1.1) == "full"
    assert mode(make_team(2), disable_dropout=False) == "full"
    assert mode(make_team(3), resample_every=2) == "full"
    agents = make_team(2)
    agents[1] = Agent("y", agents[1].model, processing_class=agents[1].processing_class, trainable=False)
    assert mode(agents) == "full"
    agents = make_team(2)
    agents[1].generation_kwargs = {"no_repeat_ngram_size": 2}
    assert mode(agents) == "full"


def test_speculative_needs_laws_that_it_knows(tmp_path):
    with pytest.raises(ValueError, match="disable_dropout"):
        make_config(tmp_path, resampling="speculative", disable_dropout=False)
    for kwargs in ({"repetition_penalty": 1.1}, {"no_repeat_ngram_size": 2}):
        team = [
            Agent(a.name, a.model, processing_class=a.processing_class, generation_kwargs=kwargs) for a in make_team(2)
        ]
        with pytest.raises(ValueError, match="supports only temperature"):
            make_trainer(tmp_path, team, resampling="speculative", kl_estimator="exact")
        make_trainer(tmp_path, team, resampling="suffix", kl_estimator="exact")


def test_every_mode_of_the_config_is_one_of_the_resampler(tmp_path):
    """A mode that it does not know would be taken for one that keeps everything."""
    assert set(RESAMPLINGS) == {"full", *RESAMPLED, *KEPT}
    with pytest.raises(ValueError, match="There is no `resampling` mode 'sometimes'"):
        Resampler(make_trainer(tmp_path, make_team(1)).team.turn_loop, "sometimes", 1, None, 8, lambda *args: None)
