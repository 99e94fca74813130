import warnings

import pytest

from trl_teamtr import Agent
from trl_teamtr.checks.sampling_checks import check_sampling, choose_estimator, choose_resampling


TRANSFORMS = [{"top_p": 0.9}, {"top_k": 5}, {"min_p": 0.1}, {"repetition_penalty": 1.2}]
OTHERS = [{"typical_p": 0.5}, {"do_sample": False}]


@pytest.mark.parametrize("transform", TRANSFORMS, ids=str)
def test_k3_refuses_transformed_sampling(make_config, transform):
    (key, value), *_ = transform.items()
    with pytest.raises(ValueError, match=f"Agent 'a' samples with {key}={value}, but `kl_estimator='k3'`"):
        check_sampling(make_config(kl_estimator="k3", **transform), [Agent("a", "m")])


@pytest.mark.parametrize("transform", [*TRANSFORMS, {"generation_kwargs": {"typical_p": 0.5}}], ids=str)
def test_by_default_the_exact_kl_decides_where_k3_is_biased_and_one_line_says_so(make_config, transform):
    args, team = make_config(**transform), [Agent("a", "m"), Agent("b", "m"), Agent("c", "m", trainable=False)]
    with pytest.warns(UserWarning, match=r"`kl_estimator='exact'` for 'a' \(.*=.*\), 'b' \(.*k3 is biased") as warned:
        check_sampling(args, team)
    assert len(warned) == 1 and "'c'" not in str(warned[0].message)
    assert args.kl_estimator is None and choose_estimator(args, 0.01) == "exact"


@pytest.mark.parametrize("given", [{}, {"temperature": 0.5}, {"trust_region_radius": None, "top_p": 0.5}], ids=str)
def test_by_default_k3_decides_where_it_is_unbiased_or_nothing_is_decided(make_config, given):
    args = make_config(**given)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_sampling(args, [Agent("a", "m")])
    assert choose_estimator(args, args.trust_region_radius) == "k3"


@pytest.mark.parametrize("transform", OTHERS, ids=str)
@pytest.mark.parametrize(
    "fields", [{"kl_estimator": "k3"}, {"resampling": "importance", "kl_estimator": "exact"}], ids=str
)
def test_other_transforms_of_generate_are_refused_too(make_config, transform, fields):
    (key, value), *_ = transform.items()
    with pytest.raises(ValueError, match=f"Agent 'a' samples with {key}={value}, but"):
        check_sampling(make_config(**fields), [Agent("a", "m", generation_kwargs=transform)])


def test_where_generate_stops_is_no_transform_but_drafts_are_not_verified_against_it(make_config):
    team = [Agent(name, "m", generation_kwargs={"eos_token_id": [1, 2], "do_sample": True}) for name in "ab"]
    assert check_sampling(make_config(), team) is None and choose_resampling(make_config(), team) == "full"


def test_how_generate_computes_is_no_transform(make_config):
    team = [Agent(name, "m", generation_kwargs={"use_cache": False}) for name in "ab"]
    assert check_sampling(make_config(), team) is None and choose_resampling(make_config(), team) == "speculative"


def test_k3_names_every_transform(make_config):
    with pytest.raises(ValueError, match="samples with top_p=0.5, top_k=3, but"):
        check_sampling(make_config(kl_estimator="k3", top_p=0.5, top_k=3), [Agent("a", "m")])


@pytest.mark.parametrize("transform", TRANSFORMS, ids=str)
@pytest.mark.parametrize("given", [{"kl_estimator": "exact"}, {"trust_region_radius": None}], ids=str)
def test_transformed_sampling_is_fine_where_k3_does_not_decide(make_config, transform, given):
    assert check_sampling(make_config(**transform, **given), [Agent("a", "m")]) is None


@pytest.mark.parametrize("given", [{}, {"temperature": 0.5}, {"top_p": 1.0, "top_k": 0, "min_p": 0.0}], ids=str)
def test_k3_accepts_the_untransformed_policy_at_any_temperature(make_config, given):
    assert check_sampling(make_config(kl_estimator="k3", **given), [Agent("a", "m")]) is None


def test_frozen_agents_may_sample_as_they_like(make_config):
    frozen = Agent("a", "m", trainable=False, generation_kwargs={"top_p": 0.5})
    assert check_sampling(make_config(), [frozen]) is None
    assert check_sampling(make_config(resampling="importance"), [frozen]) is None


def test_radius_of_the_agent_counts(make_config):
    agent = Agent("a", "m", trust_region_radius=0.01, generation_kwargs={"top_p": 0.5})
    with pytest.raises(ValueError, match="samples with top_p=0.5, but `kl_estimator='k3'`"):
        check_sampling(make_config(trust_region_radius=None, kl_estimator="k3"), [agent])


def test_length_is_no_transform(make_config):
    team = [Agent(name, "m", generation_kwargs={"max_new_tokens": 3}) for name in "ab"]
    assert choose_resampling(make_config(), team) == "speculative"


@pytest.mark.parametrize("transform", [{"top_p": 0.9}, {"generation_kwargs": {"typical_p": 0.9}}])
def test_certificate_refuses_transformed_sampling(make_config, transform):
    args = make_config(log_certificate=True, kl_estimator="exact", resampling="full", **transform)
    with pytest.raises(
        ValueError, match=f"samples with {'top_p' if 'top_p' in transform else 'typical_p'}=0.9, but `log_cert"
    ):
        check_sampling(args, [Agent("solver", "model")])


@pytest.mark.parametrize("transform", TRANSFORMS, ids=str)
def test_the_correction_of_a_server_refuses_truncated_sampling(make_config, transform):
    (key, value), *_ = transform.items()
    served = {"use_vllm": True, "vllm_mode": "server", "kl_estimator": "exact"}
    with pytest.raises(
        ValueError, match=f"'a' samples with {key}={value}, but `vllm_importance_sampling_corr.*`False`"
    ):
        check_sampling(make_config(**served, **transform), [Agent("a", "m")])
    check_sampling(make_config(**served, **transform), [Agent("a", "m", trainable=False)])
    check_sampling(make_config(**served, **transform, vllm_importance_sampling_correction=False), [Agent("a", "m")])
    check_sampling(make_config(**served), [Agent("a", "m")])


@pytest.mark.parametrize(
    "fields, name",
    [
        ({"resampling": "importance"}, "resampling='importance'"),
        ({"log_occupancy": True}, "log_occupancy"),
        ({"log_certificate": True}, "log_certificate"),
    ],
)
def test_what_weighs_all_messages_needs_all_of_them(make_config, fields, name):
    team = [Agent("a", "m"), Agent("b", "m", keep_thoughts=False)]
    with pytest.raises(ValueError, match=f"Agent 'b' has `keep_thoughts=False`.*`{name}`"):
        check_sampling(make_config(**fields), team)
    check_sampling(make_config(resampling="speculative"), team)
    check_sampling(make_config(**fields), team[:1])
