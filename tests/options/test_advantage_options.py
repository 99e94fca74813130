"""What groups by turn need of the other options."""

import pytest
from tiny import BY_TURN

from trl_teamtr import TeamTRConfig
from trl_teamtr.maths import turn_groups
from trl_teamtr.options.advantage_options import CREDITS, check_advantages


@pytest.fixture
def make(tmp_path):
    def make_config(**fields):
        return TeamTRConfig(str(tmp_path), use_cpu=True, bf16=False, report_to="none", **fields)

    return make_config


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"advantage_group": "message"}, "`advantage_group` is 'message'; it must be one of 'rollout', 'turn'"),
        ({"credit": "token"}, "`credit` is 'token'; it must be one of 'suffix', 'message'"),
        ({"credit": "message"}, "`credit='message'` is for groups by turn. Set `advantage_group='turn'` too"),
        (BY_TURN | {"scale_rewards": "group"}, "with `scale_rewards='group'`: divided .* Set `scale_rewards='none'`"),
        (BY_TURN | {"loss_type": "dapo"}, "with `loss_type='dapo'`, which divides by a number of tokens.*'dr_grpo'"),
        (
            BY_TURN | {"multi_objective_aggregation": "normalize_then_sum"},
            "with `multi_objective_aggregation='normalize_then_sum'`, which divides by deviations",
        ),
        (BY_TURN | {"mask_truncated_completions": True}, "what is left out of the loss would depend on what was said"),
        (BY_TURN | {"top_entropy_quantile": 0.5}, "what is left out of the loss would depend on what was said"),
        (BY_TURN | {"advantage_clip": 0.5}, r"with `advantage_clip=0.5`, below .* \(`advantage_bound=1.0`\)"),
        (BY_TURN | {"advantage_bound": 4.0}, r"with `advantage_clip=3.0`, below .* \(`advantage_bound=4.0`\)"),
        (BY_TURN | {"resampling": "stale"}, "with `resampling='stale'` and `resample_every=1`: branches are finished"),
        (BY_TURN | {"resample_every": 2}, "with `resampling=None` and `resample_every=2`: branches are finished"),
        (BY_TURN | {"log_occupancy": True}, "`log_occupancy` with `advantage_group='turn'`: it takes the rollouts"),
        (BY_TURN | {"log_certificate": True}, "`log_certificate` with `advantage_group='turn'`"),
    ],
    ids=str,
)
def test_what_would_be_another_gradient_is_refused_by_name(make, fields, message):
    with pytest.raises(ValueError, match=message):
        make(**fields)


def test_a_group_is_of_one_process(make):
    args = make(**BY_TURN, per_device_train_batch_size=8, num_generations=4)
    args.per_device_train_batch_size = 6  # as with several processes, whose rows are a multiple together
    with pytest.raises(
        ValueError, match="with 6 rollouts per process .* `num_generations=4`: a trunk and its branches"
    ):
        check_advantages(args)


@pytest.mark.parametrize("fields", [{"credit": "message"}, {"advantage_clip": None, "advantage_bound": 9.0}], ids=str)
def test_what_has_the_gradient_is_kept(make, fields):
    args = make(**BY_TURN, **fields)
    assert {name: getattr(args, name) for name in fields} == fields


def test_credits_are_those_of_the_maths():
    assert CREDITS == turn_groups.CREDITS
