"""The log-ratios that are kept with a transcript are those of the policies before and after the update."""

import json

import pytest
from tiny import make_team, make_trainer, next_logps
from transformers import TrainerCallback

from trl_teamtr.reports import token_ratios
from trl_teamtr.reports.transcript_log import KEPT, TRANSCRIPT_FILE


SETTINGS = {"num_stages": 1, "learning_rate": 0.05, "num_rounds": 2}


def train(folder, **fields):
    """The trainer, the policies before training, and for each agent the views of the rollouts of its only update."""
    trainer = make_trainer(folder, make_team(2), **(SETTINGS | fields))
    before = {agent.name: agent.model for agent in make_team(2)}  # the same weights
    views, keep = {}, trainer._keep_transcripts

    def watch(member, rollouts, *args):
        views[member.name] = rollouts.views[member.name]
        keep(member, rollouts, *args)

    trainer._keep_transcripts = watch
    trainer.train()
    return trainer, before, views, [json.loads(line) for line in (folder / TRANSCRIPT_FILE).read_text().splitlines()]


@pytest.mark.parametrize("estimator", ["k3", "exact"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_ratios_are_those_of_the_two_policies(tmp_path, estimator, temperature):
    fields = {"trust_region_radius": 0.3, "kl_estimator": estimator, "temperature": temperature}
    trainer, before, views, lines = train(tmp_path, **fields)
    after = {member.name: member.model.eval() for member in trainer.members}
    largest = 0.0
    for name in "xy":
        for row, line in enumerate(line for line in lines if line["agent"] == name):
            view = views[name][row]
            own = [message for message in line["messages"] if message["agent"] == name]
            assert len(own) == view.num_messages == 2
            for number, message in enumerate(own):
                context, first = view.context_of(number), view.start_of(number) - len(view.prompt_ids)
                ids = view.sampled_ids[first : first + message["tokens"]]
                assert len(message["log_ratios"]) == len(message["sampled"]) == len(ids)
                assert "".join(message["sampled"]).strip() == message["text"]
                for i, token in enumerate(ids):
                    new, old = (
                        next_logps(model.eval(), context + ids[:i], temperature)[token].item()
                        for model in (after[name], before[name])
                    )
                    assert message["log_ratios"][i] == pytest.approx(new - old, abs=2e-4)
                    largest = max(largest, abs(new - old))
        assert all(
            "log_ratios" not in m
            for line in lines
            if line["agent"] == name
            for m in line["messages"]
            if m["agent"] != name
        )
    assert largest > 0.05


def test_without_a_radius_and_where_nothing_changed_there_are_none(tmp_path):
    *_, lines = train(tmp_path / "free", trust_region_radius=None)
    assert len(lines) == 2 * KEPT and "log_ratios" not in json.dumps(lines)
    trainer, *_, lines = train(
        tmp_path / "rejected", trust_region_radius=1e-5, max_backtracks=0, max_idle_updates=None
    )
    assert [log["agent/x/rejected"] for log in trainer.state.log_history if "agent/x/rejected" in log] == [1.0]
    assert "log_ratios" not in json.dumps(lines)


def test_long_messages_are_cut(tmp_path, monkeypatch):
    monkeypatch.setattr(token_ratios, "MAX_TOKENS", 1)
    *_, lines = train(tmp_path, trust_region_radius=0.3)
    own = [m for line in lines for m in line["messages"] if "sampled" in m]
    assert {len(m["sampled"]) for m in own} == {len(m["log_ratios"]) for m in own} == {1}
    assert {m["tokens"] for m in own} == {1, 2}


class Count(TrainerCallback):
    """Draws a random number in each update, which another use of the random state would change."""

    def __init__(self):
        self.drawn = []

    def on_step_end(self, args, state, control, **kwargs):
        import torch

        self.drawn.append(torch.rand(()).item())


def test_scoring_them_draws_no_random_numbers(tmp_path, monkeypatch):
    counts = []
    for kept in (True, False):
        callback = Count()
        counts.append(callback)
        with monkeypatch.context() as patched:
            if not kept:
                patched.setattr(token_ratios.TokenRatios, "_score", lambda self: 0)
                patched.setattr(token_ratios.TokenRatios, "after", lambda self, report: None)
            fields = {"kl_estimator": "exact", "disable_dropout": False, "trust_region_radius": 0.3}
            make_trainer(tmp_path / str(kept), make_team(2), callbacks=[callback], **(SETTINGS | fields)).train()
    assert counts[0].drawn == counts[1].drawn


def test_messages_that_are_not_scored_have_none(tmp_path):
    """Of an agent that does not keep its thoughts, only the last message of a rollout is."""
    team = make_team(2)
    team[0].thinking_end, team[0].keep_thoughts = "u", False
    make_trainer(tmp_path, team, trust_region_radius=0.3, **SETTINGS).train()
    lines = [json.loads(line) for line in (tmp_path / TRANSCRIPT_FILE).read_text().splitlines()]
    for line in lines:
        own = ["log_ratios" in message for message in line["messages"] if message["agent"] == line["agent"]]
        assert own == [line["agent"] == "y", True]
