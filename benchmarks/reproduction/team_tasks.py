"""
Teams of two adapters on SmolLM2-135M-Instruct against a single agent, at about equal decoded tokens and equal numbers of updates: on
a task whose hints are split over the members (`hints.py`), where the single agent has all of them in its prompt; and on sums,
which leave two members nothing to divide, with arms that isolate what stands in the team's way there. On the hints all are warmed up
first, the single agent with the steps of both members; on sums they begin with an example in their prompt.

The team resamples with `"suffix"` in reversed order: three messages for two updates. The single agent has as many updates, each on
more prompts; where two messages are decoded for an update, it is on fewer. What isolates a cause on sums:

- `sums_context`: the single agent reads a number of a teammate that knows nothing, as the checker does of an untrained solver.
- `sums_frozen_solver`, `sums_frozen_checker`: the other member alone is trained, in all updates.
- `sums_order`: the solver is updated first, as it speaks first.
- `sums_turn`, `sums_undivided`: groups by turn, and by rollout with the same advantages, which nothing divides.
- `gradient_...`: nothing is learned. The gradients of the first stage's policies are drawn again and again, and their squared mean
  over their variance is reported for each adapter.
- `reading`: nothing is learned. How often the model is right alone, and as a checker that reads a right or a wrong number.

On the hints, `parts` trains nothing after the warm-up: how often each pair is right, in the team's messages and the single agent's.
`parts_half` is that of a single agent with the warm-up of one member, half of its own; `parts_long` of both after four times the steps.

Seeds: at the deviation that is measured on SmolLM2 (0.0497, benchmarks/power.py), four seeds tell 0.11 of accuracy in 80 of 100 studies,
and the single agent won by 0.272. Four are run, and nothing is stopped early. Arms of a task are compared with its team, after Holm's
correction.
"""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from . import hints
from . import small_language_model as small
from .cell import Cell, read, shrink, write_whole
from .light import TrainingClock, keep
from .statistics import (
    accuracy_differences,
    final_accuracy,
    holm,
    interval,
    p_value,
    reference_minus_arms,
    show,
    write_csv,
)
from .team_task_arms import ARMS, HELD_OUT, WARM_UPS, is_single, make_trainer, tell, warm_up


PROMPTS, STAGES = 4, 4
# Of the other arms, so that they decode about as many tokens as a team, with three messages for two updates
OTHER_PROMPTS = {"hints_single": 5, "sums_single": 6, "sums_context": 6}
OTHER_PROMPTS |= {"sums_frozen_solver": 3, "sums_frozen_checker": 3, "sums_order": 3}
DRAWS = 12  # of the gradients
GRADIENTS = {"gradient_team": "sums_team", "gradient_single": "sums_single", "gradient_context": "sums_context"}
READING = "reading"
# By arm, whose answers are counted after how many times the warm-up of a member
PARTS = {
    "parts": WARM_UPS,
    "parts_half": {"hints_single": 1},
    "parts_long": {"hints_team": 4, "hints_single": 8},
}


def cells(seeds: range, size: str) -> list[Cell]:
    stages = {"full": STAGES, "quick": 2, "smoke": 1}[size]
    found = [
        Cell(arm, 1 if is_single(arm) else 2, OTHER_PROMPTS.get(arm, PROMPTS), seed, stages)
        for seed in seeds
        for arm in ARMS
    ]
    draws = DRAWS if size == "full" else 2
    found += [Cell(arm, 1 if is_single(arm) else 2, PROMPTS, seeds[0], draws) for arm in GRADIENTS]
    found += [Cell(READING, 1, PROMPTS, seed, 1) for seed in seeds]
    found += [Cell(arm, len(teams), PROMPTS, seed, 1) for seed in seeds for arm, teams in PARTS.items()]
    return shrink(found, size)


def run_cell(cell: Cell, folder: Path):
    """Train one arm, or draw its gradients; write the curve, tokens and seconds, or the gradients' mean and variance."""
    started = time.process_time()
    with small.fast_on_cpus():
        runners = (
            {READING: read_numbers} | dict.fromkeys(GRADIENTS, draw_gradients) | dict.fromkeys(PARTS, count_parts)
        )
        result = runners.get(cell.arm, train)(cell, folder)
    result |= {"cell": vars(cell), "process_seconds": round(time.process_time() - started, 1)}
    write_whole(cell.path(folder), result)


def train(cell: Cell, folder: Path) -> dict[str, Any]:
    trainer = make_trainer(cell, folder)
    clock = TrainingClock(2)  # two updates are a stage, for a single agent too
    trainer.add_callback(clock)
    trainer.train()
    logs = trainer.state.log_history
    return {
        "curve": [[log["step"] // 2, round(log["eval_reward"], 4)] for log in logs if "eval_reward" in log],
        "tokens": sum(log["rollout/tokens_decoded"] for log in logs if "rollout/messages" in log),
        "seconds": [round(seconds, 2) for seconds in clock.seconds],
        "reward": [round(log["reward"], 4) for log in logs if "rollout/messages" in log],
    }


def draw_gradients(cell: Cell, folder: Path) -> dict[str, Any]:
    """For each adapter the squared mean of its gradient, without what the variance adds to it, and the variance."""
    import torch
    from gradient_variance import GradientRecorder

    still = {"learning_rate": 0.0, "num_iterations": 1, "trust_region_radius": None, "kl_coef": 0.0}
    still |= {"max_grad_norm": 0.0, "max_idle_updates": None, "eval_strategy": "no", "eval_on_start": False}
    trainer = make_trainer(replace(cell, arm=GRADIENTS[cell.arm]), folder, **still)
    recorder = GradientRecorder(trainer)
    trainer.add_callback(recorder)
    trainer.train()
    found = {}
    for name, gradients in recorder.found.items():
        drawn = torch.stack(gradients)
        variance = drawn.var(dim=0).sum().item()
        found[name] = {
            "squared_mean": drawn.mean(dim=0).square().sum().item() - variance / len(drawn),
            "variance": variance,
            "draws": len(drawn),
        }
    return {"gradients": found}


def read_numbers(cell: Cell, folder: Path) -> dict[str, Any]:
    """The share of the held-out sums that the untrained model has right: alone, and after a right and a wrong number."""
    from trl_teamtr.tasks.reasoning_gym import reasoning_gym_reward

    found = {}
    for arm, name, wrong in (
        ("sums_single", "alone", None),
        ("sums_context", "right", 0),
        ("sums_context", "wrong", 1 + cell.seed),
    ):
        trainer = make_trainer(replace(cell, arm=arm), folder)
        rows = [
            row if wrong is None else row | {"agent_prompts": tell(int(row["answer"]) + wrong)}
            for row in trainer.eval_dataset
        ]
        said = [transcript.final_text for transcript in trainer.team.collect(rows).transcripts]
        own = {key: [row[key] for row in rows] for key in ("answer", "entry")}
        found[name] = float(np.mean([score >= 1 for score in reasoning_gym_reward(said, **own)]))
    return {"reading": found}


def count_parts(cell: Cell, folder: Path) -> dict[str, Any]:
    """The shares of the held-out questions for which a part of the answer is right, after the warm-up."""
    found: dict[str, float] = {}
    for arm, times in PARTS[cell.arm].items():
        team = warm_up(arm, times, cell.seed, folder, cell.smoke)
        trainer = make_trainer(replace(cell, arm=arm), folder, team)
        rows = list(trainer.eval_dataset)
        answers = [
            hints.find_parts([message.text for message in transcript.messages], row["pairs"])
            for row, transcript in zip(rows, trainer.team.collect(rows).transcripts, strict=True)
        ]
        for part in answers[0]:
            share = np.mean([answer[part] for answer in answers])
            found[f"{arm.removeprefix('hints_')}: {part}"] = round(float(share), 4)
    return {"parts": found}


def report(folder: Path, seeds: range, size: str) -> dict[str, Any]:
    arms: dict[str, list[dict[str, Any]]] = {}
    for cell, result in read(folder, cells(seeds, size)):
        arms.setdefault(cell.arm, []).append(result)
    found: dict[str, Any] = {}
    for task, reference in (("hints", "hints_team"), ("sums", "sums_team")):
        own = {arm: runs for arm, runs in arms.items() if arm.startswith(task)}
        found |= _report_task(task, own, reference)
    for arm in GRADIENTS:
        for run in arms.get(arm, []):
            for name, each in run["gradients"].items():
                ratio = each["squared_mean"] / each["variance"] if each["variance"] else float("nan")
                print(f"{arm:<18} {name:<8} squared mean of the gradient over its variance {ratio:.4f}")
                found[f"{arm}_{name}"] = round(ratio, 6)
    if arms.get(READING):
        shares = {
            name: interval([run["reading"][name] for run in arms[READING]]) for name in ("alone", "right", "wrong")
        }
        print("untrained, right alone, after a right and a wrong number: " + "  ".join(map(show, shares.values())))
        found[READING] = {name: [round(value, 4) for value in share] for name, share in shares.items()}
    found |= _report_parts({arm: arms[arm] for arm in PARTS if arm in arms})
    keep("team_tasks", cells(seeds, size), folder)
    write_csv(folder / "team_tasks.csv", _rows(arms))
    return found


def _report_task(task: str, arms: dict[str, list[dict[str, Any]]], reference: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if not arms:
        return found
    paired = {arm: accuracy_differences(runs, arms.get(reference, [])) for arm, runs in arms.items()}
    paired = {arm: values for arm, values in paired.items() if arm != reference and len(values) > 1}
    corrected = holm({arm: p_value(values) for arm, values in paired.items()})
    print(
        f"\n{task}: accuracy on {HELD_OUT} held-out tasks, mean of the last three evaluations [95 % over seeds]; minus {reference!r} of "
        f"the same seeds, and p of the t-test after Holm's correction for the {len(paired)} comparisons"
    )
    for arm, runs in arms.items():
        accuracy = interval([final_accuracy(run) for run in runs])
        start, tokens = np.mean([run["curve"][0][1] for run in runs]), np.mean([run["tokens"] for run in runs])
        seconds = np.mean([sum(run["seconds"]) for run in runs])
        text = f"{arm:<20} {show(accuracy)} (start {start:.3f})  tokens {tokens:.0f}  processor seconds {seconds:.0f}"
        found[arm] = {"accuracy": [round(value, 4) for value in accuracy], "tokens": round(float(tokens))}
        if arm in paired:
            difference = interval(paired[arm])
            text += f"  {show(difference)} {corrected[arm]:.3f}"
            found[arm] |= {"minus_team": [round(value, 4) for value in difference], "p": round(corrected[arm], 4)}
        print(f"{text}  ({len(runs)} seeds)")
    return found


def _report_parts(arms: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for arm, runs in arms.items():
        for part in runs[0]["parts"]:
            share = interval([run["parts"][part] for run in runs])
            print(f"{arm:<12} after the warm-up, right in {part:<28} {show(share)}  ({len(runs)} seeds)")
            found[f"{arm} {part}"] = [round(value, 4) for value in share]
    for arm, other in (("parts", "parts"), ("parts", "parts_half"), ("parts_long", "parts_long")):
        answers = {
            "team": _answer_by_seed(arms.get(arm, []), "team: message 2"),
            "single": _answer_by_seed(arms.get(other, []), "single: message 1"),
        }
        values = reference_minus_arms(answers, "team")["single"]
        if len(values) > 2:  # two that are equal would be certain
            difference = interval(values)
            text = f"{arm}, team, minus {other}, single: {show(difference)}  p {p_value(values):.3f}"
            print(f"{text}  ({len(values)} seeds)")
            found[f"{arm} team minus {other} single"] = [round(value, 4) for value in difference]
    return found


def _answer_by_seed(runs: list[dict[str, Any]], message: str) -> dict[int, float]:
    """The share of both pairs that a message has right."""
    return {
        run["cell"]["seed"]: float(np.mean([run["parts"][f"{message}, pair {number}"] for number in (1, 2)]))
        for run in runs
    }


def _rows(arms: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return [
        {"arm": arm, "seed": run["cell"]["seed"], "stage": stage, "accuracy": value}
        for arm, runs in arms.items()
        for run in runs
        for stage, value in run.get("curve", [])
    ]
