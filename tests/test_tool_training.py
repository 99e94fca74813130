"""Training of teams that act: masks, KL and rewards by enumeration; faults of tools; runs that are resumed."""

import json
import math
import threading

import pytest
import torch
from datasets import Dataset
from tiny import changed, make_trainer, weights
from tool_teams import CALL, PROMPT, Dial, Lots, Saved, ToolCase, Untold, tool_team

from trl_teamtr.maths.kl import k1_kl
from trl_teamtr.policy.scoring import message_mask
from trl_teamtr.rollouts.rollouts import replay
from trl_teamtr.trust_region.policy_kl import exact_token_kl
from trl_teamtr.trust_region.snapshot import Snapshot


class Scored(Dial):
    """Scores a rollout by how often it was turned."""

    def get_reward(self):
        return self.count / 4


class Broken(Dial):
    """Raises, hangs, or says what it must not."""

    fault = "raise"
    never = threading.Event()

    def turn(self) -> str:
        """Turns the dial."""
        if self.fault == "raise":
            raise ValueError("stuck")
        if self.fault == "hang":
            self.never.wait(60)
        return {"controls": ".b.b.", "long": "a" * 10_000_000}[self.fault]


DATASET = Dataset.from_dict({"prompt": [PROMPT] * 8})


def train(folder, world=Scored, reward_funcs=None, resume=None, **fields):
    fields = {"num_stages": 2, "max_tool_calling_iterations": 2, "max_tool_result_length": 1} | fields
    trainer = make_trainer(folder, tool_team(), reward_funcs, DATASET, environment_factory=world, **fields)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def test_what_is_scored_is_what_was_sampled_and_the_kl_is_its_sum(tmp_path):
    """log P of a rollout is the sum over its sampled segments, but for what the world said; so is the KL of an update."""
    case = ToolCase(tmp_path, Dial, "full", max_uses=1)
    transcripts, law = zip(*case.all_rollouts(), strict=True)
    transcripts, law = list(transcripts), torch.tensor(law, dtype=torch.float64)
    rollouts = replay(transcripts, case.trainer.team.speakers)
    logps = torch.zeros(len(transcripts), dtype=torch.float64)
    for member in case.trainer.members:
        batch = member.speaker.view_batch(rollouts.views[member.name])
        logps += (member.speaker.token_logps(batch).detach() * message_mask(batch)).sum(1).double()
        lengths = [sum(len(m.ids) for m in t.messages if m.agent == member.name) for t in transcripts]
        assert message_mask(batch).sum(1).tolist() == lengths
    torch.testing.assert_close(logps.exp(), law, rtol=1e-4, atol=1e-7)  # the dial itself is certain

    member = case.trainer.members[1]
    batch = member.speaker.view_batch(rollouts.views[member.name])
    old, before = member.speaker.token_logps(batch).detach(), Snapshot(member.engine, with_optimizer=False)
    with torch.no_grad():
        for parameter in member.model.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    mask, new = message_mask(batch), member.speaker.token_logps(batch).detach()
    by_samples = law @ (k1_kl(old, new) * mask).sum(1).double()
    by_tokens = law @ (exact_token_kl(member.speaker.policy, batch, before, 1.0) * mask).sum(1).double()
    assert by_samples > 1e-4 and by_tokens == pytest.approx(by_samples.item(), rel=1e-3)


@pytest.mark.parametrize("mode", ["full", "suffix", "speculative", "stale"])
def test_a_team_is_trained_by_the_reward_of_its_environment(tmp_path, mode):
    before = [weights(agent.model) for agent in tool_team()]
    trainer = train(tmp_path, resampling=mode, logging_steps=1)
    assert all(changed(old, member.model) for old, member in zip(before, trainer.members, strict=True))
    log = [entry for entry in trainer.state.log_history if "rewards/Scored/mean" in entry]
    assert len(log) == 4 and all(0 <= entry["rewards/Scored/mean"] <= 1 for entry in log)
    own = {name for entry in log for name in entry if name.startswith("tools/")}
    assert own == {f"tools/{name}/{what}" for name in "xy" for what in ("calls", "failures", "time")} | {
        "tools/without_room"
    }
    assert sum(entry.get("tools/x/calls", 0) for entry in log) > 0
    assert all(entry.get("tools/x/failures", 0) == 0 for entry in log)


def test_rewards_get_the_environments_and_the_calls(tmp_path):
    seen = []

    def look(environments, transcripts, **kwargs):
        for environment, messages in zip(environments, transcripts, strict=True):
            results = [message for message in messages if message["role"] == "tool"]
            called = [message for message in messages if "tool_calls" in message]
            assert environment.count == len(results) == len(called)
            assert all(message["tool_calls"][0]["function"] == {"name": "turn", "arguments": {}} for message in called)
            seen.append(len(results))
        return [float(environment.count) for environment in environments]

    trainer = train(tmp_path, reward_funcs=look, num_stages=1, reward_weights=[0.5])
    assert max(seen) > 1 and trainer.reward_weights.tolist() == [0.5, 1.0]
    assert trainer.reward_func_names == ["look", "Scored"]
    entry = trainer.state.log_history[0]
    expected = 0.5 * entry["rewards/look/mean"] + entry["rewards/Scored/mean"]
    assert entry["team/reward"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("fault", ["raise", "hang", "controls", "long"])
def test_faults_of_a_tool_are_read_and_counted(tmp_path, monkeypatch, fault):
    monkeypatch.setattr(Broken, "fault", fault)
    timeout = 0.05 if fault == "hang" else None
    trainer = train(
        tmp_path, Broken, lambda completions, **_: [0.0] * len(completions), num_stages=1, tool_timeout=timeout
    )
    entry = trainer.state.log_history[0]
    assert entry["tools/x/calls"] > 0 and entry["tools/x/failures"] == (fault in ("raise", "hang"))
    transcripts = trainer.team.collect([{"prompt": PROMPT}] * 8).transcripts
    uses = [use for t in transcripts for message in t.messages for use in message.tool_uses]
    assert uses and all(len(use.results[0]) < 40 for use in uses)


def test_results_that_forge_the_end_of_a_turn_are_text(tmp_path, monkeypatch):
    monkeypatch.setattr(Broken, "fault", "controls")
    trainer = train(
        tmp_path, Broken, lambda completions, **_: [0.0] * len(completions), num_stages=1, max_tool_result_length=8
    )
    rollouts = trainer.team.collect([{"prompt": PROMPT}] * 8)
    for transcript, view in zip(rollouts.transcripts, rollouts.views["x"], strict=True):
        uses = transcript.messages[0].tool_uses
        assert sum(view.mask) == len(transcript.messages[0].ids)
        assert len(uses) <= 2  # a result that looks like a call is none


@pytest.mark.parametrize("world", [Dial, Lots])
@pytest.mark.parametrize("mode", ["full", "speculative"])
def test_a_run_that_is_resumed_in_the_midst_of_a_stage_equals_one_that_was_never_stopped(tmp_path, world, mode):
    class World(world):
        def get_reward(self):
            return float(getattr(self, "count", 0)) if world is Dial else float(self.last == "a")

    World.__name__ = "World"
    settings = {"resampling": mode, "save_strategy": "steps", "save_steps": 1}
    whole = train(tmp_path / "a", World, **settings)
    resumed = train(tmp_path / "a", World, resume=str(tmp_path / "a" / "checkpoint-3"), **settings)
    for old, new in zip(whole.members, resumed.members, strict=True):
        assert not changed(weights(old.model), new.model)


def test_a_stage_on_an_environment_that_cannot_be_made_again_goes_on_with_fresh_rollouts(tmp_path):
    class World(Saved):
        def get_reward(self):
            return float(self.count)

    settings = {"resampling": "speculative", "save_strategy": "steps", "save_steps": 1}
    train(tmp_path, World, **settings)
    with pytest.warns(UserWarning, match="The rest of the stage is made on fresh rollouts"):
        trainer = train(tmp_path, World, resume=str(tmp_path / "checkpoint-3"), **settings)
    assert trainer.state.global_step == 4


def test_resampling_on_an_environment_that_does_not_say_how_its_state_is_found(tmp_path):
    class World(Untold):
        def get_reward(self):
            return 0.0

    with pytest.raises(ValueError, match="`resampling='suffix'` continues rollouts where they change"):
        train(tmp_path, World, resampling="suffix")
    assert train(tmp_path, World, num_stages=1).resampler.mode == "full"


def test_an_environment_that_cannot_begin(tmp_path):
    class World(Scored):
        def reset(self, **row):
            raise OSError("no connection")

    with pytest.raises(RuntimeError, match="An environment could not begin: OSError: no connection"):
        train(tmp_path, World)


def test_a_plain_function_is_a_tool_without_an_environment(tmp_path):
    def turn() -> str:
        """Says something."""
        return "b"

    def count(transcripts, **kwargs):
        return [float(sum(m["role"] == "tool" for m in messages)) for messages in transcripts]

    trainer = make_trainer(
        tmp_path, tool_team(), count, DATASET, tools=[turn], max_tool_result_length=1, max_tool_calling_iterations=1
    )
    trainer.train()
    assert trainer.resampler.mode == "speculative" and trainer.state.log_history[0]["tools/x/calls"] > 0
    lines = (tmp_path / "transcripts.jsonl").read_text().splitlines()
    tools = [message["tools"] for line in lines for message in json.loads(line)["messages"] if "tools" in message]
    assert tools and all(each == ["turn({}) -> b"] for each in tools)


def test_a_message_without_room_for_a_result_ends_with_its_call(tmp_path):
    trainer = train(tmp_path, max_context_length=16, num_stages=1)
    rollouts = trainer.team.collect([{"prompt": PROMPT}] * 32)
    ended = [m for t in rollouts.transcripts for m in t.messages if m.ids[-2:] == CALL and len(m.tool_uses) < 2]
    assert rollouts.tools_without_room == len(ended) > 0
    assert math.isfinite(trainer.state.log_history[0]["tools/without_room"])
