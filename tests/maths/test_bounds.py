"""The inequalities of docs/theory.md on teams whose rollouts can all be listed, and wrong constants that break them."""

import math

import pytest
import torch
from enumeration import ModelStages, Stage, all_messages, log_laws, tabular_stage
from tiny import PROMPTS, enumerate_rollouts, make_team, make_trainer

from trl_teamtr.maths.certificate import (
    discounted_penalty,
    finite_horizon_penalty,
    leave_one_out_advantages,
    stale_penalty,
    surrogate_terms,
)


ROUNDING = 1e-10
GAMMA = 0.9

# agents, rounds, tokens of the models, messages of the tables
SHAPES = [(2, 1, 4, 4), (3, 1, 3, 3), (2, 2, 3, 3), (3, 2, 2, 2)]


@pytest.fixture(scope="module")
def stages(tmp_path_factory) -> list[Stage]:
    """200 random stages of teams of Qwen3 models, and 300 of tables."""
    found = [tabular_stage(2, 3, 2, seed) for seed in range(50)]
    found += [tabular_stage(2, 2, 2, seed, chance=True) for seed in range(50)]
    for agents, rounds, tokens, messages in SHAPES:
        trainer = make_trainer(tmp_path_factory.mktemp("run"), make_team(agents, tokens), num_rounds=rounds)
        models = ModelStages(trainer, tokens, rounds)
        found += [models.draw(seed) for seed in range(50)]
        found += [tabular_stage(agents, rounds, messages, seed) for seed in range(50)]
    return found


def updates_of(stages):
    return [(stage, update) for stage in stages for update in stage.updates]


def promised_too_much(stage: Stage, update: int) -> float:
    """The surrogate on fresh rollouts minus what the update brings."""
    return (stage.surrogate(update, team=update) - stage.gain(update)).item()


def penalty(stage: Stage, update: int) -> float:
    return finite_horizon_penalty(stage.own_kl(update))


def discounted(stage: Stage, update: int, gamma: float) -> tuple[float, float]:
    """What the discounted surrogate promises too much, and its penalty, for a return at the last turn."""
    _, kl = discounted_shift(stage, update, gamma)
    last = len(stage.speakers) - 1
    return gamma**last * promised_too_much(stage, update), discounted_penalty(kl, gamma)


def discounted_shift(stage: Stage, update: int, gamma: float) -> tuple[float, float]:
    """How far the update moves the discounted occupancy, whose contexts know their turn, and the mean KL over it."""
    turns = range(len(stage.speakers))
    laws = [(stage.context_law(update + 1, turn), stage.context_law(update, turn)) for turn in turns]
    moved = sum(gamma**turn * (new - old).abs().sum().item() / 2 for turn, (new, old) in enumerate(laws))
    kl = sum(gamma**turn * x for turn, x in enumerate(stage.kl(update, update + 1, team=update)))
    return (1 - gamma) * moved, (1 - gamma) * kl


def stale_gaps(stage: Stage, update: int) -> tuple[float, float]:
    """How far the stale surrogate is from the fresh one, because of the contexts and because of the returns."""
    mixed = sum(
        stage.law(0) @ ((stage.ratios(update)[:, turn] - 1) * stage.values(update)[:, turn + 1])
        for turn in stage.turns(update)
    )
    fresh, stale = stage.surrogate(update, team=update), stage.surrogate(update, team=0)
    return abs((fresh - mixed).item()), abs((mixed - stale).item())


def stale(stage: Stage, update: int):
    return stale_penalty(stage.kl(update, update + 1, team=0), stage.kl(0, update, team=0))


# The tables


@pytest.mark.parametrize("agents, rounds, tokens, messages", SHAPES)
def test_tables_hold_the_laws_of_the_models(tmp_path, agents, rounds, tokens, messages):
    trainer = make_trainer(tmp_path, make_team(agents, tokens), num_rounds=rounds)
    stage = ModelStages(trainer, tokens, rounds).draw(seed=1)  # leaves the models as they are after the last update
    numbers = {message.ids: i for i, message in enumerate(all_messages(trainer._tokenizer, ""))}
    expected = torch.zeros(len(stage.returns), dtype=torch.float64)
    for rollout in enumerate_rollouts(trainer, PROMPTS[1]):
        index = 0
        for message in rollout.messages:
            index = index * len(numbers) + numbers[message.ids]
        expected[index] = rollout.probability
    torch.testing.assert_close(stage.law(agents), expected, atol=1e-6, rtol=1e-4)
    assert (stage.law(0) - expected).abs().sum() > 1e-2


# Step by step


def test_only_the_turns_of_the_updated_agent_count(stages):
    """The performance-difference lemma, with the advantages of the old team under the law of the new one."""
    for stage, update in updates_of(stages):
        values = stage.values(update)
        advantages = stage.law(update + 1) @ (values[:, 1:] - values[:, :-1])
        own = stage.turns(update)
        others = [turn for turn in range(len(stage.speakers)) if turn not in own]
        assert advantages[others].abs().max() < ROUNDING
        assert advantages[own].sum().item() == pytest.approx(stage.gain(update).item(), abs=ROUNDING)


def test_contexts_shift_by_no_more_than_the_kl_of_the_turns_before(stages):
    """Telescoping, Pinsker and Jensen, for each turn of the updated agent."""
    for stage, update in updates_of(stages):
        kl, moved = stage.own_kl(update), [stage.moved(update)[turn].item() for turn in stage.turns(update)]
        assert all(distance <= math.sqrt(x / 2) + ROUNDING for distance, x in zip(moved, kl, strict=True))
        for number, turn in enumerate(stage.turns(update)):
            shift = (stage.context_law(update + 1, turn) - stage.context_law(update, turn)).abs().sum().item() / 2
            assert shift <= sum(moved[:number]) + ROUNDING
            assert shift <= math.sqrt(sum(kl[:number]) / 2) + ROUNDING  # Pinsker's inequality once, for all turns
            assert shift <= sum(math.sqrt(x / 2) for x in kl[:number]) + ROUNDING
            assert number > 0 or shift < ROUNDING


def test_what_a_policy_gains_at_a_context_is_at_most_how_far_it_moves(stages):
    """Step 4: the advantage of the new policy, context by context; returns are in [0, 1]."""
    for stage, update in updates_of(stages):
        changes, values = stage.ratios(update) - 1, stage.values(update)
        for turn in stage.turns(update):
            gains = stage.given_context(update, turn, changes[:, turn] * values[:, turn + 1])
            distances = stage.given_context(update, turn, changes[:, turn].abs() / 2)
            assert (gains.abs() <= distances + ROUNDING).all()


def test_lemma_of_two_laws_and_a_bounded_function():
    generator = torch.Generator().manual_seed(0)
    shares = []
    for size in [2, 3, 6] * 300:
        p, q = (3 * torch.randn(2, size, generator=generator, dtype=torch.float64)).softmax(dim=1)
        f = (2 * torch.rand(size, generator=generator, dtype=torch.float64) - 1) ** 3
        distance = ((p - q).abs().sum() / 2).item()
        bound = distance + min(distance, (q @ f.abs()).item())
        shares.append(abs(((p - q) @ f).item()) / bound)
    assert 0.9 < max(shares) <= 1 + ROUNDING


def test_occupancy_shift_is_the_mean_of_what_the_weights_lack(stages):
    """D_occ: E max(0, 1 - w) on the stage's first rollouts is the total variation of the contexts."""
    for stage, update in updates_of(stages):
        for turn in stage.turns(update):
            weights = (stage.teams[update] - stage.teams[0])[:, :turn].sum(dim=1).exp()
            measured = stage.law(0) @ (1 - weights).clamp(min=0)
            shift = (stage.context_law(update, turn) - stage.context_law(0, turn)).abs().sum() / 2
            assert measured.item() == pytest.approx(shift.item(), abs=ROUNDING)
            assert shift <= math.sqrt(sum(stage.kl(0, update, team=0)[:turn]) / 2) + ROUNDING
            assert update > 0 or measured < ROUNDING


def test_surrogate_of_the_package_is_the_exact_one(stages):
    """Every message as one token, every rollout weighted by its probability."""
    for stage, update in updates_of(stages[::10]):
        own = torch.tensor([speaker == stage.order[update] for speaker in stage.speakers])
        mask = own.expand(len(stage.returns), -1)
        weighted = len(stage.returns) * stage.law(update) * (stage.returns - stage.value(update))
        log_ratios = stage.teams[update + 1] - stage.teams[update]
        terms = surrogate_terms(log_ratios, mask, own.cumsum(0).expand_as(mask) - 1, weighted, weighted, 0.2, 0.2)
        exact = stage.surrogate(update, team=update).item()
        assert terms.mean(dim=0)[0].item() == pytest.approx(exact, abs=ROUNDING)


def test_leave_one_out_surrogate_is_unbiased_and_the_one_with_the_group_mean_is_not():
    """Over all pairs of rollouts, i.e. all groups of two."""
    stage = tabular_stage(2, 1, 3, seed=4)
    pairs = torch.cartesian_prod(*[torch.arange(len(stage.returns))] * 2)
    law = stage.law(0)[pairs].prod(dim=1)
    gain = (stage.ratios(0) - 1).sum(dim=1)[pairs]
    returns = stage.returns[pairs]
    unbiased = leave_one_out_advantages(returns.flatten(), 2).view(-1, 2)
    centred = returns - returns.mean(dim=1, keepdim=True)
    exact = stage.surrogate(0, team=0).item()
    assert (law @ (gain * unbiased).mean(dim=1)).item() == pytest.approx(exact, abs=ROUNDING)
    assert (law @ (gain * centred).mean(dim=1)).item() == pytest.approx(exact / 2, abs=ROUNDING)
    assert abs(exact) > 1e-2


# The bounds


def test_agent_that_speaks_once_gains_what_its_surrogate_says(stages):
    once = [(stage, update) for stage, update in updates_of(stages) if len(stage.turns(update)) == 1]
    assert len(once) == 500
    for stage, update in once:
        assert penalty(stage, update) == 0
        assert abs(promised_too_much(stage, update)) < ROUNDING


def test_finite_horizon_bound_holds_for_every_update_and_stage(stages):
    for stage in stages:
        bounds = [stage.surrogate(i, team=i).item() - penalty(stage, i) for i in stage.updates]
        for update, bound in zip(stage.updates, bounds, strict=True):
            assert stage.gain(update) >= bound - ROUNDING
            kl = stage.own_kl(update)
            tighter = math.sqrt(2) * sum(math.sqrt(sum(kl[:number])) for number in range(len(kl)))
            assert promised_too_much(stage, update) <= tighter + ROUNDING
            shifts = [sum(math.sqrt(x / 2) for x in kl[:number]) for number in range(len(kl))]
            by_lemma = sum(shift + min(shift, math.sqrt(x / 2)) for shift, x in zip(shifts, kl, strict=True))
            assert promised_too_much(stage, update) <= by_lemma + ROUNDING
        assert stage.value(len(bounds)) - stage.value(0) >= sum(bounds) - ROUNDING


@pytest.mark.parametrize("gamma", [0.1, GAMMA])
def test_discounted_bound_holds_for_every_update_and_stage(stages, gamma):
    for stage in stages:
        found = [discounted(stage, update, gamma) for update in stage.updates]
        assert all(too_much <= penalty + ROUNDING for too_much, penalty in found)
        assert sum(too_much for too_much, _ in found) <= sum(penalty for _, penalty in found) + ROUNDING


def test_stale_bound_holds_for_both_parts_of_every_update(stages):
    for stage, update in updates_of(stages):
        bound, (contexts, returns) = stale(stage, update), stale_gaps(stage, update)
        assert contexts <= bound.contexts + ROUNDING
        assert returns <= bound.returns + ROUNDING
        assert update > 0 or bound.total == 0
        own, earlier = stage.turns(update), stage.order[:update]
        assert (bound.contexts > 0) == any(speaker in earlier for speaker in stage.speakers[: own[-1]])
        assert (bound.returns > 0) == any(speaker in earlier for speaker in stage.speakers[own[0] :])


def test_stale_stage_is_bounded_by_both_penalties(stages):
    for stage in stages:
        bounds = [
            stage.surrogate(update, team=0).item() - stale(stage, update).total - penalty(stage, update)
            for update in stage.updates
        ]
        assert stage.value(len(bounds)) - stage.value(0) >= sum(bounds) - ROUNDING


def test_surrogate_cannot_exceed_what_its_kl_allows(stages):
    """Nor the change of the mean return. What docs/theory.md draws from it is in test_certificate.py."""
    for stage, update in updates_of(stages):
        kl = stage.own_kl(update)
        assert abs(stage.surrogate(update, team=update)) <= sum(math.sqrt(x / 2) for x in kl) + ROUNDING
        assert abs(stage.gain(update)) <= math.sqrt(sum(kl) / 2) + ROUNDING


# Wrong constants


def test_without_penalties_the_bounds_fail_on_random_teams(stages):
    several = [(stage, update) for stage, update in updates_of(stages) if len(stage.turns(update)) > 1]
    broken = [promised_too_much(stage, update) > 1e-6 for stage, update in several]
    assert sum(broken) > len(broken) / 4
    later = [(stage, update) for stage, update in updates_of(stages) if update > 0]
    assert sum(sum(stale_gaps(stage, update)) > 1e-6 for stage, update in later) > 0.9 * len(later)


def team_of_coins(*chances: list[float]) -> torch.Tensor:
    """A team with messages 0 and 1: for each turn the chance of a 1 in each context."""
    return log_laws([torch.tensor([[1 - p, p] for p in turn], dtype=torch.float64).log() for turn in chances])


def hard_stage(speakers, order, *teams) -> Stage:
    """The return is the last message."""
    laws = [team_of_coins(*team) for team in teams]
    return Stage(speakers, order, laws, torch.arange(len(laws[0]), dtype=torch.float64) % 2)


# Where the bounds are almost equalities: a fair coin moves by ETA, and by how it fell an answer that was all but
# certain (up to EPSILON) turns into its opposite
ETA, EPSILON = 0.05, 0.005
FAIR, SHIFTED = [0.5], [0.5 + ETA]
BEFORE, AFTER = [EPSILON, 1 - EPSILON], [1 - EPSILON, EPSILON]


def test_finite_horizon_constant_is_tight():
    """One agent, two turns: the second is judged on contexts that the first has moved."""
    stage = hard_stage([0, 0], [0], (FAIR, BEFORE), (SHIFTED, AFTER))
    assert 0.95 < promised_too_much(stage, 0) / penalty(stage, 0) < 1


def test_discounted_constant_is_tight_for_small_gamma():
    stage = hard_stage([0, 0], [0], (FAIR, BEFORE), (SHIFTED, AFTER))
    too_much, bound = discounted(stage, 0, gamma=1e-6)
    assert 0.95 < too_much / bound < 1


def test_discounted_occupancy_shifts_by_no_more_than_the_discounted_kl(stages):
    for stage, update in updates_of(stages):
        shift, kl = discounted_shift(stage, update, GAMMA)
        assert shift <= GAMMA / (1 - GAMMA) * math.sqrt(kl / 2) + ROUNDING
    # A coin at the first of eight turns, by which all contexts that follow differ
    rest = [[0.5] * 2**turn for turn in range(1, 8)]
    shift, kl = discounted_shift(hard_stage([0] * 8, [0], (FAIR, *rest), (SHIFTED, *rest)), 0, 0.5)
    assert 0.5 * math.sqrt(kl / 2) < shift < 0.5 / (1 - 0.5) * math.sqrt(kl / 2)


def test_stale_constant_of_the_contexts_is_tight():
    stage = hard_stage([0, 1], [0, 1], (FAIR, BEFORE), (SHIFTED, BEFORE), (SHIFTED, AFTER))
    contexts, returns = stale_gaps(stage, 1)
    assert 0.95 < contexts / stale(stage, 1).contexts < 1
    assert returns == pytest.approx(0, abs=ROUNDING) and stale(stage, 1).returns == 0


def test_stale_constant_of_the_returns_is_tight():
    """The other way round: the second speaker has turned before the first one moves."""
    stage = hard_stage([0, 1], [1, 0], (FAIR, BEFORE), (FAIR, AFTER), (SHIFTED, AFTER))
    contexts, returns = stale_gaps(stage, 1)
    assert 0.95 < returns / stale(stage, 1).returns < 1
    assert contexts == pytest.approx(0, abs=ROUNDING) and stale(stage, 1).contexts == 0


def test_kl_of_the_earlier_agents_alone_does_not_bound_the_stale_gap():
    """They have changed only where they hardly ever were, and that is where the update goes."""
    rare = 1e-6
    stage = hard_stage([0, 1], [1, 0], ([rare], [0.5, 0.01]), ([rare], [0.5, 0.99]), ([0.5], [0.5, 0.99]))
    _, gap = stale_gaps(stage, 1)
    (earlier,) = [kl for kl in stage.kl(0, 1, team=0) if kl > 0]
    assert gap > 100 * math.sqrt(earlier)
    assert gap <= stale(stage, 1).returns
