"""What the benchmarks compute from what they measured, which cells they run, and that they run at all."""

import importlib
import json
import math
import os
import random
import shutil
import statistics as reference
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import trl


BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import guess_number  # noqa: E402
import learning_cells  # noqa: E402
import plot_results  # noqa: E402
import power  # noqa: E402
import reproduce  # noqa: E402
import service_desk  # noqa: E402
from gpu import check  # noqa: E402
from link_start import save_stand_in  # noqa: E402
from machine import describe_machine  # noqa: E402
from plot_resampling_cost import plot, read_tables  # noqa: E402
from quiet import QUIET  # noqa: E402
from reproduction import (  # noqa: E402
    ablations,
    certificates,
    learning_rates,
    light,
    long_training,
    monitoring,
    replacement,
    scaling,
    smollm2,
)
from reproduction.arms import ARMS, BASE  # noqa: E402
from reproduction.cell import Cell, last_round_reward, read  # noqa: E402
from reproduction.statistics import (  # noqa: E402
    accuracy_differences,
    exponent,
    final_accuracy,
    holm,
    interval,
    p_value,
    rank_correlation,
    regression_rate,
    stability,
)
from side_by_side import run_side_by_side  # noqa: E402

from trl_teamtr import Agent, TeamTRConfig  # noqa: E402
from trl_teamtr.checks.sampling_checks import check_sampling  # noqa: E402


@pytest.mark.parametrize("count", [3, 5, 40])
def test_interval_holds_the_mean_about_as_often_as_it_says(count):
    rng, held = random.Random(0), 0
    for _ in range(400):
        _, low, high = interval([rng.gauss(1.0, 2.0) for _ in range(count)])
        held += low <= 1.0 <= high
    assert 0.92 <= held / 400 <= 0.98


def test_one_value_has_no_interval():
    value, low, high = interval([2.0])
    assert value == 2.0 and math.isnan(low) and math.isnan(high)


def test_comparisons_are_corrected_for_their_number():
    corrected = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": math.nan})
    assert corrected["a"] == pytest.approx(0.03) and corrected["c"] == corrected["b"] == pytest.approx(0.06)
    assert math.isnan(corrected["d"])
    assert p_value([0.1, 0.2, 0.3]) == pytest.approx(0.0742, abs=1e-4) and math.isnan(p_value([0.0, 0.0]))


def test_seeds_that_tell_a_difference():
    """Of half a standard deviation 34, and of one 10, as in tables of the t-test."""
    assert power.count_seeds(2 * power.EFFECT, 0.05) == 34 and power.count_seeds(power.EFFECT, 0.05) == 10
    assert power.count_seeds(2 * power.EFFECT, 0.05 / 3) > 34
    accuracies = {"full": {0: 0.5, 1: 0.6, 2: 0.7}, "stale": {0: 0.5, 1: 0.7, 3: 0.9}, "same": {0: 0.5, 1: 0.6}}
    study = power.pair("study", accuracies, "full", ["stale", "same"])
    assert list(study.differences) == ["stale"] and study.differences["stale"] == pytest.approx([0.0, 0.1])
    assert study.deviation == pytest.approx(0.1 / 2**0.5) and study.limits()[0] < study.deviation < study.limits()[1]


def test_cells_of_one_process_are_those_of_several(tmp_path):
    cells = [Cell(arm, 2, 4, seed=0, stages=1, smoke=True) for arm in ("speculative", "full")]
    for folder, parts in ((tmp_path / "one", [cells]), (tmp_path / "each", [cells[1:]])):
        for part in parts:
            words = [word for cell in part for word in ("--cell", json.dumps(vars(cell)))]
            reproduce.main(
                reproduce.make_parser().parse_args(["ablations", str(folder), "--smoke", "--team", "0", "8"])
            )
            reproduce.main(reproduce.make_parser().parse_args(["ablations", str(folder), "--smoke", *words]))
    ((_, one),), ((_, other),) = (read(tmp_path / name, cells[1:]) for name in ("one", "each"))
    assert one["curve"] == other["curve"] and cells[0].path(tmp_path / "one").exists()
    reports = [[(u["kl"], u["loss"], u["rollout/tokens_decoded"]) for u in run["updates"]] for run in (one, other)]
    assert reports[0] == reports[1]


def test_a_study_goes_on_from_the_cells_that_are_committed(tmp_path, monkeypatch):
    first, second = (Cell("stale", 3, 24, seed, scale=0.1, late=6) for seed in (0, 1))
    (tmp_path / "one").mkdir(), (tmp_path / "other").mkdir()
    first.path(tmp_path / "one").write_text(json.dumps({"cell": vars(first), "curve": [[0, 0.5]]}))
    light.keep("learning_rates", [first, second], tmp_path / "one")
    monkeypatch.setattr(light, "KEPT", tmp_path / "one")
    light.restore("learning_rates", [first, second], tmp_path / "other")
    assert [cell for cell, _ in read(tmp_path / "other", [first, second])] == [first]
    first.path(tmp_path / "other").write_text("its own")  # is not overwritten
    light.restore("learning_rates", [first], tmp_path / "other")
    assert first.path(tmp_path / "other").read_text() == "its own"


def test_worst_learning_rate_of_each_seed(capsys):
    def run(*accuracies):
        return {
            10**i: {seed: {"curve": [[0, 0.3], [1, value + seed / 10]]} for seed in (0, 1, 2)}
            for i, value in enumerate(accuracies)
        }

    runs = {"speculative": run(0.5, 0.7), "stale": run(0.4, 0.8), "dapo": {1: run(0.1)[1]}}
    found = learning_rates._compare(runs, 2, "at the end", lambda arm, each: each["curve"][-1][1])
    assert found["worst_minus_stale"][0] == pytest.approx(0.1) and found["mean_minus_stale"][0] == pytest.approx(0.0)
    assert not any("dapo" in name for name in found)  # has not run at all rates


def test_falls_of_a_long_run():
    curve = [[stage, value] for stage, value in enumerate([0.5, 0.6, 0.3, 0.31, 0.3])]
    run = {"curve": curve}
    assert long_training.falls(run) == 1 / 4  # 0.31 to 0.3 may be chance
    assert long_training.fall_from_best(run) == pytest.approx(1.4 / 3 - 0.91 / 3)


@pytest.mark.parametrize("power", [1.0, 1.94])
def test_exponent_of_a_power_law(power):
    rng, sizes = random.Random(0), (2, 3, 4, 6, 8)
    by_seed = [[0.01 * n**power * rng.uniform(0.9, 1.1) for n in sizes] for _ in range(5)]
    value, low, high = exponent(sizes, by_seed)
    assert low <= power <= high and abs(value - power) < 0.1


def test_penalties_of_a_stage_of_equal_updates():
    kl, n = 0.02, 4
    run = {"updates": [{"stage": stage, "kl": kl} for stage in range(2) for _ in range(n)]}
    alpha = (kl / 2) ** 0.5
    assert scaling.SUMS["root_kl"](run) == pytest.approx(n * kl**0.5)
    assert scaling.SUMS["stale_penalty"](run) == pytest.approx(alpha * (n * (n - 1) / 2 + n - 1))  # docs/theory.md


def test_what_is_not_positive_has_no_exponent():
    assert exponent((2, 4), [[0.1, 0.2], [-0.1, 0.4]]) is None


def test_squared_gaps_are_0_on_average_where_there_is_noise_alone():
    rng, error = random.Random(0), 0.02

    def update(contexts, returns=0.0):
        gap = {"occupancy/stale_gap_contexts": contexts, "occupancy/stale_gap_returns": returns}
        return {"stage": 4, "occupancy/tv": 0.1, "occupancy/stale_gap_se": error} | gap

    noise = [{"updates": [update(rng.gauss(0.0, error)) for _ in range(3)]} for _ in range(4000)]
    squares = [scaling.SUMS["squared_gap"](run) for run in noise]
    assert abs(reference.mean(squares)) < 4 * reference.stdev(squares) / len(squares) ** 0.5
    gaps = {"updates": [update(0.01), update(-0.03), update(0.02, 0.03)]}
    assert scaling.SUMS["squared_gap"](gaps) == pytest.approx(0.01**2 + 0.03**2 + 0.05**2 - 3 * error**2)
    assert scaling.SUMS["gap"](gaps) == pytest.approx(0.01 - 0.03 + 0.05)


def test_figures_of_a_curve():
    run = {"curve": [[0, 0.1], [1, 0.3], [2, 0.2], [3, 0.6], [4, 0.5], [5, 0.7], [6, 0.9]]}
    assert final_accuracy(run) == pytest.approx(0.7)
    assert stability(run) == pytest.approx(reference.stdev([0.3, 0.2, 0.6, 0.5, 0.7, 0.9]))
    assert regression_rate(run) == pytest.approx(2 / 6)
    assert rank_correlation([1, 2, 3], [10, 20, 15]) == pytest.approx(0.5)


def test_accuracies_are_compared_seed_by_seed():
    def run(seed, accuracy):
        return {"cell": {"seed": seed}, "curve": [[0, 0.0]] + [[stage, accuracy] for stage in (1, 2, 3)]}

    reference = [run(0, 0.5), run(2, 0.25)]
    assert accuracy_differences([run(2, 0.5), run(1, 0.9), run(0, 0.25)], reference) == [0.25, -0.25]


def test_studies_run_known_arms_and_share_cells(tmp_path):
    seeds = range(2)
    cells = [cell for study in (scaling, ablations, certificates, monitoring) for cell in study.cells(seeds, "full")]
    assert {cell.arm for cell in cells} <= set(ARMS)
    assert {cell.arm for cell in smollm2.cells(seeds, "full")} == set(smollm2.ARMS)
    assert len({cell.name for cell in cells}) == len(set(cells)) < len(cells)  # the same name is the same cell
    cell = Cell("full", 3, 24, 0, 10, (4,))
    assert cell in scaling.cells(seeds, "full") and cell in ablations.cells(seeds, "full")
    cell.path(tmp_path).write_text('{"curve": []}')
    assert read(tmp_path, cells) == [(cell, {"curve": []})] * cells.count(cell)


def test_the_control_of_a_replacement_has_the_tokens_of_the_alignment():
    curve = [[stage, stage / 100] for stage in range(15)]
    unaligned = {0: {"tokens": [10.0] * 14, "curve": curve}, 1: {"tokens": [10.0] * 14, "curve": curve}}
    aligned = {0: {"report": {"tokens_decoded": 5, "tokens_trained": 20}}, 2: {}}
    (control,) = replacement._control(unaligned, aligned, 10).values()
    assert control["more"] == 3 and control["curve"][-1] == [13, 0.13] and len(control["tokens"]) == 13
    aligned[0]["report"]["tokens_trained"] = 50
    with pytest.raises(SystemExit, match="Seed 0: 4 stages have fewer tokens than the alignment, 55"):
        replacement._control(unaligned, aligned, 10)
    cells = replacement.cells(range(2), "full")
    assert {cell.arm for cell in cells} == {f"swap_{arm}" for arm in replacement.SWITCHES}
    assert {cell.stages for cell in cells if cell.arm != "swap_thoughts_off"} == {10}


def test_the_power_calculation_prints_what_is_kept(capsys):
    import replacement_power

    kept = BENCHMARKS.parent / "docs" / "results" / "reproduction"
    options = type("Options", (), {"csv": str(kept / "ablations.csv")})
    replacement_power.main(options)
    assert capsys.readouterr().out == (kept / "replacement_power.txt").read_text().partition("\n")[2]
    # With no true difference, the share of intervals above -0.05 is what it says
    rng, sd, seeds = np.random.default_rng(0), 0.065, 10
    draws = rng.normal(0.0, sd, (20_000, seeds))
    half = replacement_power.half_width(1.0, seeds) * draws.std(axis=1, ddof=1)
    assert abs((draws.mean(axis=1) - half > -0.05).mean() - replacement_power.power(sd, seeds)) < 0.01


def test_replacements_of_several_runs_together(tmp_path, capsys):
    import replacement_pooled

    header, tables = "arm,seed,stage,accuracy,shock", [tmp_path / "one.csv", tmp_path / "other.csv"]
    for table, seeds in zip(tables, [(0, 1), (2,)], strict=True):
        rows = [
            f"{arm},{seed},{stage},{accuracy + seed / 10 + stage / 100},{shock}"
            for seed in seeds
            for arm, accuracy, shock in [
                ("never_swapped", 0.6, ""),
                ("aligned", 0.5, 0.1),
                ("more_training", 0.2, 0.3),
            ]
            + ([("none", 0.1, 0.6), ("thoughts_off", 0.2, 0.3)] if seed < 2 else [])
            for stage in range(5)
        ]
        table.write_text("\n".join([header, *rows]))
    replacement_pooled.main(type("Options", (), {"tables": tables}))
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["aligned"]["minus_never_swapped"] == pytest.approx([-0.1] * 3, abs=1e-4)
    assert found["aligned"]["seeds"] == 3 and found["none"]["seeds"] == 2
    assert found["never_swapped"]["accuracy"][0] == pytest.approx(0.73)  # the last three stages
    assert found["aligned_minus_more_training"][0] == pytest.approx(0.3)
    shutil.copy(tables[0], tmp_path / "copy.csv")
    with pytest.raises(SystemExit, match="Seed 0 of 'never_swapped' is in"):
        replacement_pooled.read([tables[0], tmp_path / "copy.csv"])


def test_line_about_the_machine_names_versions_and_size():
    line = describe_machine()
    assert f"torch {torch.__version__}" in line and f"trl {trl.__version__}" in line
    assert f"{os.cpu_count()} cores" in line and ("no GPU" in line) == (not torch.cuda.is_available())


def test_reward_of_the_last_round():
    def say(*texts):
        return [{"content": text} for text in texts]

    digits = [[1, 2, 3]]
    assert last_round_reward([say("0A", "9B", "9C", "0A", "1B", "2C")], digits) == [1.0]
    assert last_round_reward([say("0A", "1B", "2C", "0A", "1B", "9C")], digits) == [0.5]


def test_commands_run_side_by_side_and_failures_are_told(tmp_path):
    # One write each: the lines of unbuffered prints get mixed
    commands = [[sys.executable, "-c", f"import sys; sys.stdout.write('{i}\\n')"] for i in range(3)]
    run_side_by_side(commands, 2, tmp_path / "output.txt")
    assert sorted((tmp_path / "output.txt").read_text().split()) == ["0", "1", "2"]
    failing = [[sys.executable, "-c", "raise SystemExit(1)"], [sys.executable, "-c", "print('never')"]]
    with pytest.raises(SystemExit, match="Failed; see"):
        run_side_by_side(failing, 1, tmp_path / "output.txt")
    assert "never" not in (tmp_path / "output.txt").read_text()


def test_plot_of_what_the_resampling_benchmark_printed(tmp_path):
    output = Path(__file__).resolve().parent.parent / "docs" / "results" / "resampling_cost.txt"
    tables = read_tables(output.read_text())
    assert list(tables) == ["0.01", "0.25"]
    for modes in tables.values():
        assert set(modes) == {"stale", "full", "suffix", "suffix reversed", "speculative"}
        assert all(list(by_size) == [2, 3, 4, 6, 8] for by_size in modes.values())
    assert tables["0.01"]["full"][8] == (73729, 14.76)
    plot(tables, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000


def test_plots_of_the_docs_are_drawn_from_what_is_kept_beside_them(tmp_path):
    """Every image of docs/results, from the texts alone; axes are labelled, and seeds counted."""
    from matplotlib.figure import Figure

    kept, texts, save = BENCHMARKS.parent / "docs" / "results", [], Figure.savefig
    shutil.copytree(kept, tmp_path / "results", ignore=shutil.ignore_patterns("*.png"))

    def note(figure, *args, **kwargs):
        texts.extend(
            (axis.get_xlabel(), axis.get_ylabel(), axis.get_title(), axis.get_legend()) for axis in figure.axes
        )
        save(figure, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Figure, "savefig", note)
        plot_results.draw(tmp_path / "results")
    images = {path.relative_to(kept) for path in kept.rglob("*.png")}
    assert images == {path.relative_to(tmp_path / "results") for path in (tmp_path / "results").rglob("*.png")}
    assert len(texts) > 20
    for x, y, title, legend in texts:
        assert x and y and "(n = " in title and legend is not None


@pytest.mark.parametrize("learned", [guess_number, service_desk])
def test_table_of_the_docs_is_that_of_the_cells_that_are_kept(learned, capsys):
    docs = BENCHMARKS.parent / "docs"
    folder = docs / "results" / learned.__name__
    cells = plot_results.read_lines(folder / "cells.jsonl")
    runs = {arm: {cell["seed"]: cell for cell in cells if cell["arm"] == arm} for arm in learned.ARMS}
    assert all(sorted(by_seed) == [0, 1, 2, 3, 4] for by_seed in runs.values())
    learning_cells.print_table(runs, learned.LAST)
    kept = [line.rstrip() for line in (folder / "output.txt").read_text().splitlines()]
    assert set(capsys.readouterr().out.splitlines()) <= set(kept)
    page = (docs / "worlds.md").read_text()
    for arm, by_seed in runs.items():
        gains = [learning_cells.final(run, learned.LAST) - run["curve"][0][1] for run in by_seed.values()]
        mean, low, high = interval(gains)
        tokens = reference.mean(run["tokens"] for run in by_seed.values())
        (row,) = [line for line in page.splitlines() if line.startswith(f"| {arm} | {tokens:,.0f} |")]
        assert f"{mean:.3f} [{low:.3f}, {high:.3f}]" in row


# The whole path of each script at its smallest, in this process; "{folder}" is the test's, "{model}" a tiny model
SMOKE = {
    "team_of_one": [],
    "resampling_cost": [],
    "resampling_cost --model": ["--model", "{model}"],
    "overhead": [],
    "overhead --model": ["--model", "{model}"],
    "credit_variance": [],
    "generation": [],
    "generation --model": ["--model", "{model}"],
    "memory": [],
    "plan": [],
    "plan_large": [],
    "plan_recipes": [],
    "power": [],
    "precision": [],
    "fingerprints": ["--only", "heterogeneous", "lora"],
    "gradient_variance": ["{folder}"],
    "reuse_learning": ["{folder}"],
    "guess_number": ["{folder}"],
    "service_desk": ["{folder}"],
    "vllm_link": [],
    "vllm_publish": [],
    "versus_comlrl": [],
    "versus_comlrl --model": ["--model", "{model}"],
    **{f"reproduce {study}": [study, "{folder}"] for study in reproduce.STUDIES},
}


@pytest.mark.parametrize("name", SMOKE)
def test_benchmark_runs_with_the_trainer_as_it_is(name, tmp_path, capsys):
    places = {"{model}": save_stand_in(tmp_path / "model"), "{folder}": str(tmp_path / "results")}
    arguments = [places.get(argument, argument) for argument in SMOKE[name]]
    script = importlib.import_module(name.split()[0])
    script.main(script.make_parser().parse_args([*arguments, "--smoke"]))
    assert json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.mark.parametrize("part", check.PARTS)
def test_part_of_the_check_on_a_gpu_runs_on_a_cpu(part, tmp_path, capsys):
    check.main(check.make_parser().parse_args([str(tmp_path), "--parts", part, "--smoke"]))
    assert json.loads(capsys.readouterr().out.splitlines()[-1])[part]["end"] == "ended"
    found = json.loads((tmp_path / f"{part}.json").read_text())
    assert "torch" in found["machine"] and found["smoke"]
    assert all(each.get("passed", "skipped" in each) for each in found.get("checks", {}).values())


def test_part_that_fails_or_takes_too_long_says_so_and_keeps_what_it_found(tmp_path, monkeypatch):
    options = check.make_parser().parse_args([str(tmp_path), "--model", "nowhere"])
    monkeypatch.setitem(check.PARTS, "largest", 0.01)
    check.write(tmp_path, "largest", {"contexts": {"64": {}}})
    assert check.run_within("largest", options) == "ran out of its 0.01 s"
    found = json.loads((tmp_path / "largest.json").read_text())
    assert found["contexts"] == {"64": {}} and found["end"] == "ran out of its 0.01 s"
    monkeypatch.setattr(check.sys, "executable", "false")
    assert check.run_within("floors", options) == "failed with status 1"
    assert json.loads((tmp_path / "floors.json").read_text()) == {"end": "failed with status 1", "log": ""}


def test_every_benchmark_has_a_smallest_size():
    scripts = {path.stem for path in BENCHMARKS.glob("*.py") if "__main__" in path.read_text()}
    small = {
        "plot_resampling_cost",
        "plot_results",
        "replacement_power",
        "replacement_pooled",
    }  # they have tests of their own
    assert scripts - small == {name.split()[0] for name in SMOKE}


@pytest.mark.parametrize("arm", ARMS)
def test_arm_is_not_refused(arm, tmp_path):
    args = TeamTRConfig(str(tmp_path), **BASE | ARMS[arm] | QUIET)
    check_sampling(args, [Agent(name, "not loaded") for name in "ab"])
