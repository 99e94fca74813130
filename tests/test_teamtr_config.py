import pytest

from trl_teamtr import TeamTRConfig
from trl_teamtr.options.team_options import check_radius


@pytest.fixture
def make_config(tmp_path):
    def make(**kwargs):
        return TeamTRConfig(str(tmp_path), use_cpu=True, bf16=False, report_to="none", **kwargs)

    return make


def test_defaults(make_config):
    args = make_config()
    assert args.num_iterations == 4 and args.disable_dropout is True
    assert args.num_stages is None and args.update_order == "sequential"
    assert args.num_agents is None and args.num_rounds == 1 and args.max_turns is None
    assert args.router == "round_robin" and args.stop_string is None and args.max_context_length is None
    assert args.allow_silent_agents is False and args.share_base_model is True
    assert args.trust_region_radius == 0.01 and args.kl_estimator is None
    assert args.kl_coef == 0.1 and args.kl_controller == "adaptive"
    assert args.max_backtracks == 10 and args.advantage_clip == 3.0 and args.advantage_epsilon == 1e-6


# Numbers of micro-batches: batches of 4 rollouts, groups of 2


def accumulation(args):
    return args.steps_per_generation, args.gradient_accumulation_steps, args.generation_batch_size


@pytest.mark.parametrize(
    "given, expected",
    [
        ({}, (1, 1, 4)),
        ({"steps_per_generation": 3}, (3, 3, 12)),
        ({"generation_batch_size": 8}, (2, 2, 8)),
        ({"gradient_accumulation_steps": 5}, (5, 5, 20)),
        ({"gradient_accumulation_steps": 3, "steps_per_generation": 3}, (3, 3, 12)),
        ({"gradient_accumulation_steps": 2, "generation_batch_size": 8}, (2, 2, 8)),
        ({"gradient_accumulation_steps": 1, "generation_batch_size": 8}, (2, 1, 8)),
        ({"gradient_accumulation_steps": 2, "steps_per_generation": 5}, (5, 2, 20)),
    ],
)
def test_micro_batches_of_a_pass_and_of_a_step(make_config, given, expected):
    args = make_config(per_device_train_batch_size=4, num_generations=2, **given)
    assert accumulation(args) == expected


@pytest.mark.parametrize(
    "given", [{"steps_per_generation": 2}, {"generation_batch_size": 8}, {"generation_batch_size": 8, "k": 0}], ids=str
)
def test_a_step_of_more_than_a_pass_or_of_nothing_is_refused(make_config, given):
    steps = given.pop("k", 3)
    message = f"`gradient_accumulation_steps` is {steps} and `steps_per_generation` is 2: .* a number from 1 to 2"
    with pytest.raises(ValueError, match=message):
        make_config(per_device_train_batch_size=4, num_generations=2, gradient_accumulation_steps=steps, **given)


REFUSED = [
    ({"num_stages": 2, "max_steps": 3}, r"Both `num_stages` \(2\) and `max_steps` \(3\) are set"),
    ({"num_stages": 0}, "`num_stages` must be at least 1, got 0"),
    ({"num_iterations": 0}, "`num_iterations` must be at least 1, got 0"),
    ({"max_idle_updates": 0}, "`max_idle_updates` must be at least 1, or `None` for no limit, got 0"),
    ({"update_order": "shuffled"}, "`update_order` is 'shuffled'; .* one of 'sequential', 'reversed', 'random'"),
    ({"num_agents": 0}, "`num_agents` must be at least 1 or `None`, got 0"),
    ({"max_turns": 0}, "`max_turns` must be at least 1 or `None`, got 0"),
    ({"max_context_length": -1}, "`max_context_length` must be at least 1 or `None`, got -1"),
    ({"template_date": "31.1.2026"}, "`template_date` must be a date such as '2026-01-31'.* got '31.1.2026'"),
    ({"num_rounds": 0}, "`num_rounds` must be at least 1, got 0"),
    ({"router": "star"}, "`router` is 'star'; it must be one of 'round_robin', 'random'"),
    ({"trust_region_radius": 0.0}, "`trust_region_radius` of the config is 0.0"),
    ({"trust_region_radius": -1.0}, "`trust_region_radius` of the config is -1.0"),
    (
        {"scoring_precision": "tf32"},
        "`scoring_precision` is 'tf32'; it must be one of 'float32', 'float16', 'bfloat16'",
    ),
    (
        {"speaking_precision": "fp16"},
        "`speaking_precision` is 'fp16'; it must be one of 'float32', 'float16', 'bfloat16'",
    ),
    ({"kl_estimator": "k1"}, "`kl_estimator` is 'k1'; it must be one of 'k3', 'exact'"),
    ({"kl_controller": "off"}, "`kl_controller` is 'off'; it must be one of 'adaptive', 'fixed'"),
    ({"kl_coef": -0.1}, "`kl_coef` must be at least 0, got -0.1"),
    ({"max_backtracks": -1}, "`max_backtracks` must be at least 0, got -1"),
    ({"advantage_clip": 0.0}, "`advantage_clip` must be positive or `None`, got 0.0"),
    ({"advantage_epsilon": 0.0}, "`advantage_epsilon` must be positive, got 0.0"),
    ({"max_completion_length": None, "loss_type": "dr_grpo"}, "divides by `max_completion_length`, which is `None`"),
    ({"reward_timeout": 0.0}, "`reward_timeout` must be a positive number of seconds, or `None`.*got 0.0"),
    ({"enable_jit_checkpoint": True}, "`enable_jit_checkpoint=True` is not supported.*SIGTERM"),
    (
        {"use_vllm": True, "offload_idle_agents": True},
        "`offload_idle_agents=True` is not supported with `vllm_mode='col",
    ),
    ({"sync_ref_model": True}, "`sync_ref_model=True` is not supported"),
    ({"use_liger_kernel": True}, "`use_liger_kernel=True` is not supported"),
]


@pytest.mark.parametrize(
    "given, message", REFUSED, ids=[",".join(f"{k}={v}" for k, v in g.items()) for g, _ in REFUSED]
)
def test_bad_values_are_refused_by_name(make_config, given, message):
    with pytest.raises(ValueError, match=message):
        make_config(**given)


@pytest.mark.parametrize(
    "given",
    [
        {"num_stages": 1},
        {"max_steps": 3},
        {"num_iterations": 1},
        {"update_order": "reversed"},
        {"update_order": "random"},
        {"num_agents": 1, "max_turns": 1, "max_context_length": 1},
        {"router": "random"},
        {"trust_region_radius": None},
        {"kl_estimator": "exact"},
        {"kl_coef": 0.0, "kl_controller": "fixed"},
        {"max_backtracks": 0},
        {"max_completion_length": None},
        {"advantage_clip": None},
        {"reward_timeout": 0.5},
    ],
    ids=str,
)
def test_values_at_the_edge_are_kept(make_config, given):
    args = make_config(**given)
    assert {name: getattr(args, name) for name in given} == given


@pytest.mark.parametrize("radius", [None, 0.01, 1e-12, float("inf")])
def test_check_radius_accepts_positive_numbers_and_none(radius):
    assert check_radius(radius, "agent 'a'") is None


@pytest.mark.parametrize("radius", [0, -0.5, float("nan")])
def test_check_radius_names_the_owner(radius):
    with pytest.raises(ValueError, match=f"`trust_region_radius` of agent 'a' is {radius}"):
        check_radius(radius, "agent 'a'")
