"""The occupancy diagnostics against exact enumeration, and against their definitions."""

import pytest
import torch
from tiny import answer_reward, enumerate_rollouts, make_team, make_trainer

from trl_teamtr.maths.occupancy import context_weights, occupancy_metrics, stale_gap, surrogate_gain


PROMPT = "au"


def nudge(model, seed, scale=0.3):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for param in model.parameters():
            param += scale * torch.randn(param.shape, generator=generator)


def prefix(rollout, turns):
    return tuple((m.agent, m.ids) for m in rollout.messages[:turns])


class Moved:
    """A team at the start of a stage, after the updates of some agents, and after one more: all rollouts of each."""

    def __init__(self, folder, updated, active, agents=3, **fields):
        self.trainer = trainer = make_trainer(folder, make_team(agents), **fields)
        self.name = trainer.members[active].name
        self.start = enumerate_rollouts(trainer, PROMPT)
        for number in updated:
            nudge(trainer.members[number].model, seed=number)
        self.now = enumerate_rollouts(trainer, PROMPT)
        nudge(trainer.members[active].model, seed=9, scale=0.1)
        self.after = enumerate_rollouts(trainer, PROMPT)

    def turns_of(self, rollout):
        return [turn for turn, message in enumerate(rollout.messages) if message.agent == self.name]

    def term(self, number, rollout_return):
        """Of the gain: a function of the agent's messages in context and of the return."""
        rollout, after = self.start[number], self.after[number]
        own = self.turns_of(rollout)
        ratio = sum(after.logps[t] - self.now[number].logps[t] for t in own)
        gain = surrogate_gain(
            torch.tensor([[ratio]]), torch.ones(1, 1), torch.tensor([rollout_return]), clip_low=0.2, clip_high=0.2
        )
        return gain.item()


@pytest.mark.parametrize("rounds", [1, 2])
def test_mean_of_the_positive_part_is_the_total_variation_of_the_contexts(tmp_path, rounds):
    team = Moved(tmp_path, updated=[0], active=1, agents=2, num_rounds=rounds)
    p = torch.tensor([r.probability for r in team.start], dtype=torch.float64)
    turns = [team.turns_of(r) for r in team.start]
    estimated, exact = 0.0, 0.0
    for number in range(rounds):
        # w of each rollout, from the log-ratios of its messages
        ratios = torch.tensor(
            [
                [b - a for a, b in zip(r.logps, now.logps, strict=True)]
                for r, now in zip(team.start, team.now, strict=True)
            ],
            dtype=torch.float64,
        )
        speaks = torch.zeros(ratios.shape, dtype=torch.bool)
        speaks[range(len(turns)), [own[number] for own in turns]] = True
        estimated += (p * (1 - context_weights(ratios, speaks)).clamp(min=0)).sum().item()
        laws = [{}, {}]
        for law, rollouts in zip(laws, (team.start, team.now), strict=True):
            for rollout, own in zip(rollouts, turns, strict=True):
                key = prefix(rollout, own[number])
                law[key] = law.get(key, 0) + rollout.probability
        exact += sum(abs(laws[0][key] - laws[1][key]) for key in laws[0]) / 2
    assert exact > 0.05
    assert estimated == pytest.approx(exact, abs=1e-9)


def exact_gap(team):
    """Means of the stale, the mixed and the fresh gain, by enumeration of whole rollouts."""
    returns = answer_reward(None, [[{"content": m.text} for m in r.messages] for r in team.start])
    kept = [team.turns_of(r)[-1] + 1 for r in team.start]
    start_law, now_law = {}, {}
    for rollout, now, turns in zip(team.start, team.now, kept, strict=True):
        start_law[prefix(rollout, turns)] = start_law.get(prefix(rollout, turns), 0) + rollout.probability
        now_law[prefix(now, turns)] = now_law.get(prefix(now, turns), 0) + now.probability
    stale = mixed = fresh = 0.0
    for number, (rollout, now, turns) in enumerate(zip(team.start, team.now, kept, strict=True)):
        term, key = team.term(number, returns[number]), prefix(rollout, turns)
        stale += rollout.probability * term
        mixed += start_law[key] * now.probability / now_law[key] * term
        fresh += now.probability * term
    return stale, mixed, fresh


def test_both_parts_of_the_gap_are_there_and_add_up(tmp_path):
    stale, mixed, fresh = exact_gap(Moved(tmp_path, updated=[0, 2], active=1))
    assert abs(mixed - fresh) > 1e-3 and abs(stale - mixed) > 1e-3
    assert stale - fresh == pytest.approx((mixed - fresh) + (stale - mixed))


def test_an_agent_after_which_none_was_updated_has_no_gap_of_contexts_in_reversed_order(tmp_path):
    stale, mixed, fresh = exact_gap(Moved(tmp_path, updated=[2, 1], active=0))
    assert mixed == pytest.approx(fresh, abs=1e-9)
    assert abs(stale - mixed) > 1e-3


def test_an_agent_that_speaks_last_has_no_gap_of_returns(tmp_path):
    stale, mixed, fresh = exact_gap(Moved(tmp_path, updated=[0, 1], active=2))
    assert stale == pytest.approx(mixed, abs=1e-9)
    assert abs(mixed - fresh) > 1e-3


def test_nobody_updated_no_gap(tmp_path):
    stale, mixed, fresh = exact_gap(Moved(tmp_path, updated=[], active=1))
    assert stale == pytest.approx(fresh, abs=1e-9) and mixed == pytest.approx(fresh, abs=1e-9)


def test_metrics_of_weights():
    found = occupancy_metrics(torch.tensor([0.5, 1.0, 1.5, 1.0]))
    assert found["tv"] == pytest.approx(0.125)
    assert found["ess"] == pytest.approx(4.0**2 / (4 * (0.25 + 1 + 2.25 + 1)))
    assert found["w_max"] == 1.5 and found["w_p95"] == pytest.approx(1.425)
    equal = {"tv": 0.0, "ess": 1.0, "w_p95": 1.0, "w_p99": 1.0, "w_max": 1.0, "w_above_10": 0.0}
    assert occupancy_metrics(torch.ones(7)) == equal
    assert occupancy_metrics(torch.tensor([0.1, 10.0, 11.0, 99.0]))["w_above_10"] == 0.5
    assert occupancy_metrics(torch.empty(0)) == {}


def test_weights_that_overflow_when_squared_have_an_effective_sample_size():
    found = occupancy_metrics(torch.tensor([1e200, 1e200, 1.0], dtype=torch.float64))
    assert found["ess"] == pytest.approx(2 / 3)


def test_only_messages_before_the_turn_weigh():
    ratios = torch.tensor([[0.3, -0.2, 5.0], [0.1, 0.0, 7.0]])
    speaks = torch.tensor([[False, True, False], [False, False, True]])
    torch.testing.assert_close(context_weights(ratios, speaks).log().float(), torch.tensor([0.3, 0.1]))


def test_gain_is_zero_without_an_update_and_clipped():
    mask = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    advantages = torch.tensor([2.0, -1.0])
    assert surrogate_gain(torch.zeros(2, 2), mask, advantages, 0.2, 0.2).tolist() == [0, 0]
    ratios = torch.tensor([[3.0, 1.1], [3.0, 9.0]]).log()
    # A good message gains up to the clip; a bad one loses without bound, and what is masked does not count
    torch.testing.assert_close(
        surrogate_gain(ratios, mask, advantages, 0.2, 0.2).float(), torch.tensor([0.2 * 2 + 0.1 * 2, -2.0])
    )


def test_standard_errors_are_over_prompts():
    generator = torch.Generator().manual_seed(0)
    stale, mixed, fresh = (torch.randn(40, dtype=torch.float64, generator=generator) for _ in range(3))
    found = stale_gap(stale, mixed, fresh, group=4)
    by_prompt = (stale - fresh).view(10, 4).mean(1)
    assert found["stale_gap"] == pytest.approx(abs(by_prompt.mean().item()))
    assert found["stale_gap_se"] == pytest.approx((by_prompt.std() / 10**0.5).item())
    assert abs(found["stale_gap_contexts"] + found["stale_gap_returns"]) == pytest.approx(found["stale_gap"])
