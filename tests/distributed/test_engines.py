"""One update agrees with a single process under every engine, and the radius holds there."""

import math

import pytest
import torch
from launching import derive_config, launch
from run_probe import run
from teams import KINDS, save_models


# Config, what accelerate must say that it runs, what each agent must run on
ENGINES = {
    "multi_gpu": ("MULTI_CPU", "PlainEngine"),
    "zero1": ("DEEPSPEED", "ZeroEngine"),
    "zero2": ("DEEPSPEED", "ZeroEngine"),
    "zero3": ("DEEPSPEED", "Zero3Engine"),
    "zero3_offload": ("DEEPSPEED", "Zero3Engine"),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    save_models(folder)
    return folder


@pytest.fixture(scope="module")
def alone(models, tmp_path_factory):
    """What one process finds on the same global batch."""
    return {kind: run(kind, models, tmp_path_factory.mktemp("alone"), num_processes=1) for kind in KINDS}


@pytest.fixture(scope="module", params=ENGINES)
def found(request, models, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    launch(derive_config(request.param, folder), "run_probe.py", models, folder)
    return request.param, {kind: [torch.load(folder / f"{kind}-{rank}.pt") for rank in (0, 1)] for kind in KINDS}


def agents_of(result: dict) -> list[dict]:
    return [entry for name, entry in result.items() if name in ("x", "y", "z")]


def pairs(found, alone):
    """Each agent's result on each process, beside that of one process."""
    for kind, results in found[1].items():
        for result in results:
            assert len(agents_of(result)) == {"mixed": 3, "shared": 2}[kind]
            yield from zip(agents_of(result), agents_of(alone[kind]), strict=True)


def test_it_is_the_engine_that_was_asked_for(found):
    distributed_type, engine = ENGINES[found[0]]
    for results in found[1].values():
        for result in results:
            assert result["processes"] == 2 and result["distributed_type"].endswith(distributed_type)
            assert {entry["engine"] for entry in agents_of(result)} == {engine}


def test_gradients_are_those_of_one_process(found, alone):
    for ours, one in pairs(found, alone):
        assert ours["gradient"].keys() == one["gradient"].keys()
        for name, gradient in one["gradient"].items():
            scale = gradient.abs().max()
            torch.testing.assert_close(ours["gradient"][name], gradient, rtol=1e-4, atol=1e-5 * scale.item())
            torch.testing.assert_close(ours["gradient_again"][name], gradient, rtol=1e-4, atol=1e-5 * scale.item())
        assert max(gradient.abs().max() for gradient in one["gradient"].values()) > 1e-3


def test_weights_are_those_of_one_process(found, alone):
    for ours, one in pairs(found, alone):
        moved = 0.0
        for name, weight in one["end"].items():
            torch.testing.assert_close(ours["start"][name], one["start"][name], rtol=0, atol=0)
            assert (ours["end"][name] - weight).norm() <= 1e-4 * weight.norm() + 1e-7, name
            moved = max(moved, (weight - one["start"][name]).abs().max().item())
        assert moved > 1e-4


def test_counts_and_decisions_are_global(found, alone):
    for ours, one in pairs(found, alone):
        assert ours["num_messages"] == one["num_messages"]
        assert ours["kl"] == pytest.approx(one["kl"], rel=1e-3)
        for report, expected in zip(ours["reports"], one["reports"], strict=True):
            assert report == pytest.approx(expected, rel=2e-3, abs=1e-7)
    for results in found[1].values():  # to the bit: else one process could decide otherwise than the other
        assert [a["reports"] for a in agents_of(results[0])] == [b["reports"] for b in agents_of(results[1])]


def test_fewer_rows_than_a_batch_are_evaluated(found, alone):
    for results in (*found[1].values(), alone.values()):
        for result in results:
            assert all(math.isfinite(reward) for reward in result["rewards of few rows"].values())
    for results in found[1].values():
        assert results[0]["rewards of few rows"] == results[1]["rewards of few rows"]


def test_some_updates_stopped_early_backtracked_and_were_rejected(alone):
    reports = [report for result in alone.values() for entry in agents_of(result) for report in entry["reports"]]
    assert any(report["backtracks"] and not report["rejected"] for report in reports)
    assert any(0 < report["inner_steps"] < 4 for report in reports)
    assert sum(report["rejected"] for report in reports) == 5


def test_rejection_restores_weights_master_weights_and_moments(found):
    for results in found[1].values():
        assert all(entry["rejection_restores"] for result in results for entry in agents_of(result))


def test_other_agents_stay_bit_identical(found):
    for results in found[1].values():
        assert all(entry["others_unchanged"] for result in results for entry in agents_of(result))


@pytest.mark.parametrize("engine", ["zero2", "zero3"])
def test_radius_holds_with_bfloat16_weights_and_float32_masters(engine, models, tmp_path):
    launch(derive_config(engine, tmp_path, mixed_precision="bf16"), "run_probe.py", models, tmp_path, "bf16")
    results = [torch.load(tmp_path / f"{kind}-{rank}.pt") for kind in KINDS for rank in (0, 1)]
    reports = []
    for entry in [entry for result in results for entry in agents_of(result)]:
        assert entry["rejection_restores"] and entry["others_unchanged"]
        assert {weight.dtype for weight in entry["end"].values()} == {torch.bfloat16}
        reports += entry["reports"]
    assert all(report["kl"] <= 0.02 for report in reports if not report["rejected"] and report["kl_proposed"] > 0.02)
    assert any(report["backtracks"] and not report["rejected"] for report in reports)
