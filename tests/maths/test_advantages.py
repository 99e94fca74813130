import pytest
import torch
from tiny import answer_reward, make_team, make_trainer

from trl_teamtr.maths.advantages import group_advantages


def test_two_groups_by_hand():
    """Eq. 9: deviations from the group's mean over sqrt(variance + epsilon), each group by itself."""
    returns = torch.tensor([0.0, 1.0, 2.0, 10.0, 10.0, 16.0], dtype=torch.float64)
    sigma = (2 / 3 + 0.5) ** 0.5, (24 / 3 + 0.5) ** 0.5
    expected = [-1 / sigma[0], 0, 1 / sigma[0], -2 / sigma[1], -2 / sigma[1], 4 / sigma[1]]
    assert group_advantages(returns, 3, epsilon=0.5).tolist() == pytest.approx(expected)


def test_variance_is_not_bessel_corrected():
    assert group_advantages(torch.tensor([0.0, 2.0]), 2).tolist() == pytest.approx([-1, 1], abs=1e-5)


def test_batch_scale_divides_by_the_deviation_of_the_whole_batch():
    # Mean 3, variance (9 + 1 + 1 + 9) / 4 = 5
    advantages = group_advantages(torch.tensor([0.0, 2.0, 4.0, 6.0]), 2, scale="batch", epsilon=4.0)
    assert advantages.tolist() == pytest.approx([-1 / 3, 1 / 3, -1 / 3, 1 / 3])


def test_scale_none_only_centres():
    advantages = group_advantages(torch.tensor([0.0, 2.0, 5.0, 6.0]), 2, scale="none")
    assert advantages.tolist() == [-1.0, 1.0, -0.5, 0.5]


def test_advantages_are_clipped():
    returns = torch.tensor([0.0] * 24 + [1.0])  # one in 25: sigma = sqrt(0.04 * 0.96), outlier at 0.96 / sigma = 4.9
    assert group_advantages(returns, 25)[-1] == 3.0
    assert group_advantages(returns, 25, clip=2.0)[-1] == 2.0
    assert group_advantages(-returns, 25, clip=2.0)[-1] == -2.0
    assert group_advantages(returns, 25, clip=None)[-1] == pytest.approx(24**0.5, rel=1e-4)


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_group_mean_is_zero_without_clipping(scale):
    returns = torch.randn(40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    means = group_advantages(returns, 8, scale=scale, clip=None).view(5, 8).mean(dim=1)
    assert means.abs().max() < 1e-12


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_equal_returns_have_no_advantage(scale):
    returns = torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0, 2.0, 0.0, 2.0])
    advantages = group_advantages(returns, 4, scale=scale)
    assert advantages[:4].tolist() == [0.0] * 4
    assert (advantages[4:] != 0).all()


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_nan_return_is_left_out(scale):
    """The others get what they would get without it, and the rollout itself gets 0."""
    nan = float("nan")
    with_nan = group_advantages(torch.tensor([1.0, 5.0, nan, nan, 2.0, 3.0]), 3, scale=scale)
    without = group_advantages(torch.tensor([1.0, 5.0, 2.0, 3.0]), 2, scale=scale)
    assert with_nan[[0, 1, 4, 5]].tolist() == pytest.approx(without.tolist())
    assert with_nan[[2, 3]].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_group_without_any_return_gets_zero(scale):
    nan = float("nan")
    advantages = group_advantages(torch.tensor([nan, nan, 0.0, 2.0]), 2, scale=scale)
    assert advantages[:2].tolist() == [0.0, 0.0]
    assert advantages[2:].tolist() == pytest.approx([-1.0, 1.0], abs=1e-5)


def test_shape_and_dtype_are_kept():
    returns = torch.tensor([0.0, 1.0, 2.0, 3.0], dtype=torch.float64)
    advantages = group_advantages(returns, 2)
    assert advantages.shape == returns.shape and advantages.dtype == returns.dtype


def test_unknown_scale_raises():
    with pytest.raises(ValueError, match="`scale` is 'std'; it must be 'group', 'batch' or 'none'"):
        group_advantages(torch.tensor([0.0, 1.0]), 2, scale="std")


@pytest.mark.parametrize("value, size", [(0.7, 7), (0.3, 6), (1 / 3, 8)])
def test_equal_returns_that_float32_rounds_still_give_nothing(value, size):
    assert group_advantages(torch.full((size,), value), size).abs().max() < 1e-9


def test_mean_return_is_logged_however_rewards_are_put_together(tmp_path):
    def one(completions, **kwargs):
        return [1.0] * len(completions)

    trainer = make_trainer(
        tmp_path, make_team(1), [answer_reward, one], multi_objective_aggregation="normalize_then_sum"
    )
    trainer.train()
    assert trainer.state.log_history[0]["team/reward"] > 0.5
