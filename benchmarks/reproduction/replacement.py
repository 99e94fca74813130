"""
Replacement of a member: a trained LINK team of three, whose middle member gives its place to a model of another size, with
another tokenizer and another dialect, that thinks before it answers. Each step of the protocol's unification on top of the one
before: none, the system prompt, thoughts off, Stage-0 alignment (no member has tools, so there is no call format to map). After
the swap ten more stages, for all members with new optimizers, also for the team that was never swapped. The control spends the
alignment's tokens on more stages instead.
"""

import gc
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from .arms import BASE
from .cell import Cell, read, shrink, write_whole
from .light import keep
from .newcomers import OWN_SYSTEM, POSITION, THINKING_END, make_old_members, save_base, save_newcomer
from .statistics import final_accuracy, interval, p_value, show, write_csv


AGENTS, PROMPTS = 3, 24
BEFORE, AFTER, EXTRA = 20, 10, 4  # stages: of the old team, after the swap, and at most of the control
PROBES, HELD_OUT = 500, 512

# Switches of `AlignmentConfig`; `None` for the team that is never swapped
SWITCHES: dict[str, dict[str, bool] | None] = {
    "never_swapped": None,
    "none": {"take_system_prompt": False, "thoughts_off": False, "align": False},
    "system_prompt": {"thoughts_off": False, "align": False},
    "thoughts_off": {"align": False},
    "aligned": {},
}
CONTROL = "more_training"  # the run of `thoughts_off`, as many tokens later as the alignment took

PAPER = {
    "none": (18.3, 58.2),
    "system_prompt": (12.1, 67.5),
    "thoughts_off": (8.7, 73.1),
    "aligned": (2.9, 85.3),
}


def cells(seeds: range, size: str) -> list[Cell]:
    after, extra = (AFTER, EXTRA) if size != "smoke" else (1, 1)
    found = [
        Cell(f"swap_{arm}", AGENTS, PROMPTS, seed, after + (extra if arm == "thoughts_off" else 0))
        for seed in seeds
        for arm in SWITCHES
    ]
    return shrink(found, size)


def prepare(seed: int, folder: Path, size: str) -> Path:
    """The trained team of a seed, which all its cells share; and the newcomer, which all seeds share."""
    save_newcomer(folder / "newcomer", size)
    path = folder / f"trained_team_{seed}"
    if not path.exists():
        save_base(folder / "base", AGENTS, size)
        members = make_old_members(folder / "base", AGENTS, seed, size)
        save_trained(make_trainer(members, seed, folder / "trainer", _shape(size), size), path)
    return path


def _shape(size: str) -> dict[str, int]:
    return {"num_stages": BEFORE if size == "full" else 4 if size == "quick" else 1}


def make_trainer(team: Any, seed: int, output: Path, shape: dict[str, int], size: str):
    from quiet import QUIET
    from transformers.trainer_callback import PrinterCallback

    from trl_teamtr import TeamTRConfig, TeamTRTrainer
    from trl_teamtr.tasks import link

    smoke = size == "smoke"
    settings = BASE | ({"num_generations": 2} if smoke else {})
    held_out = 4 if smoke else HELD_OUT
    args = TeamTRConfig(
        str(output),
        seed=seed,
        per_device_train_batch_size=settings["num_generations"] * PROMPTS,
        logging_steps=1,
        eval_strategy="steps",
        eval_on_start=True,
        eval_steps=AGENTS,
        per_device_eval_batch_size=held_out,
        num_generations_eval=1,
        **settings,
        **shape,
        **QUIET,
    )
    trainer = TeamTRTrainer(
        team,
        link.link_reward,
        args,
        train_dataset=link.make_dataset(AGENTS, 50 if smoke else 5000, seed),
        eval_dataset=link.make_dataset(AGENTS, held_out, 10**6 + seed),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def swap(cell: Cell, folder: Path, switches: dict[str, bool]) -> tuple[Any, dict[str, Any]]:
    """The team with the newcomer, and the report of the replacement."""
    from trl_teamtr import Agent, Team
    from trl_teamtr.replacement import AlignmentConfig, replace_member
    from trl_teamtr.tasks import link

    team = Team.from_pretrained(str(folder / f"trained_team_{cell.seed}"))
    name = link.NAMES[POSITION]
    newcomer = Agent(name, str(folder / "newcomer"), system_prompt=OWN_SYSTEM, thinking_end=THINKING_END)
    args = AlignmentConfig(
        num_probes=8 if cell.smoke else PROBES,
        learning_rate=1e-3,
        num_train_epochs=1 if cell.smoke else 20,
        per_device_train_batch_size=32,
        early_stopping_patience=5,
        use_cpu=True,
        seed=cell.seed,
        samples_per_prompt=1 if cell.smoke else 2,
        generation_batch_size=512,
        **switches,
    )
    report = replace_member(
        team,
        name,
        newcomer,
        probes=link.make_dataset(AGENTS, PROBES, 4 * 10**6 + cell.seed),
        args=args,
        reward_funcs=link.link_reward,
        eval_prompts=link.make_dataset(AGENTS, 4 if cell.smoke else HELD_OUT, 5 * 10**6 + cell.seed),
    )
    return team, {name: value for name, value in report.as_dict().items() if name != "losses"}  # of hundreds of steps


def run_cell(cell: Cell, folder: Path):
    """Swap, and train on; write the report of the swap, the curve, and the tokens of each stage."""
    from trl_teamtr import load_team

    gc.set_threshold(1_000_000)  # thousands of transcripts, and no cycles among them
    start = prepare(cell.seed, folder, cell.size)
    switches, report = SWITCHES[cell.arm.removeprefix("swap_")], None
    if switches is not None:
        team, report = swap(cell, folder, switches)
        start = folder / f"{cell.name}.team{os.getpid()}"
        team.save_pretrained(str(start))
    shape = {"num_stages": cell.stages}
    trainer = make_trainer(load_team(str(start)), cell.seed + 500, folder / "trainer", shape, cell.size)
    train_on(trainer, cell, report, folder)


def save_trained(trainer: Any, path: Path):
    """Train the team of a seed, and save it with its curve at `path`."""
    trainer.train()
    part = path.with_name(f"{path.name}.part{os.getpid()}")
    trainer.save_model(str(part))
    (part / "curve.json").write_text(json.dumps(_curve(trainer)))
    part.rename(path)


def train_on(trainer: Any, cell: Cell, report: dict[str, Any] | None, folder: Path):
    """Train after the swap; write its report, the curve, and the tokens of each stage."""
    trainer.train()
    logs = [log for log in trainer.state.log_history if "rollout/messages" in log]
    result = {
        "cell": vars(cell),
        "report": report,
        "curve": _curve(trainer),
        "tokens": _tokens_by_stage(logs, [member.name for member in trainer.members]),
        "updates": [],
    }
    write_whole(cell.path(folder), result)


def _curve(trainer: Any) -> list[list[float]]:
    logs, agents = trainer.state.log_history, len(trainer.members)
    return [[log["step"] // agents, log["eval_reward"]] for log in logs if "eval_reward" in log]


def _tokens_by_stage(logs: list[dict[str, Any]], names: list[str]) -> list[float]:
    """For each stage the tokens that were decoded, and those of the views in all passes of its updates."""
    found, seen = list[float](), 0.0
    for number, log in enumerate(logs):
        (passes,) = (log[key] for name in names if (key := f"agent/{name}/inner_steps") in log)
        views, seen = log["num_tokens"] - seen, log["num_tokens"]
        if number % len(names) == 0:
            found.append(0.0)
        found[-1] += log["rollout/tokens_decoded"] + views * passes
    return found


# The report


def report(folder: Path, seeds: range, size: str) -> dict[str, Any]:
    arms: dict[str, dict[int, dict[str, Any]]] = {}
    for cell, result in read(folder, cells(seeds, size)):
        arms.setdefault(cell.arm.removeprefix("swap_"), {})[cell.seed] = result
    stages = AFTER if size != "smoke" else 1
    print(
        f"\nLINK, n = {AGENTS}, member {'abc'[POSITION]} of a trained team replaced; accuracy is the mean of the last three of "
        f"{stages} stages after the swap [95 % over seeds]; paper: points of AIME24"
    )
    found = report_arms(arms, "thoughts_off", stages, PAPER)
    write_csv(folder / "replacement.csv", curve_rows(arms))
    keep("replacement", cells(seeds, size), folder)
    return found


def report_arms(
    arms: dict[str, dict[int, dict]], unaligned: str, stages: int, paper: dict[str, tuple[float, float]]
) -> dict[str, Any]:
    """
    Print and return the figures of all arms, and add the control to them.

    Args:
        arms (`dict[str, dict[int, dict]]`): Results by arm and seed.
        unaligned (`str`): The arm of which the control has more stages.
        stages (`int`): After the swap, of all other arms.
        paper (`dict[str, tuple[float, float]]`): The paper's shock and final score of the arms that it has.
    """
    if CONTROL not in arms and {unaligned, "aligned"} <= set(arms):
        arms[CONTROL] = _control(arms[unaligned], arms["aligned"], stages)
    arms[unaligned] = {seed: _cut(run, stages) for seed, run in arms.get(unaligned, {}).items()}
    found = {}
    for arm in (*SWITCHES, CONTROL):
        runs = arms.get(arm, {})
        if runs:
            found[arm] = _report_arm(arm, runs, arms.get("never_swapped", {}), paper)
    _report_ratio(arms, found)
    return found


def _cut(run: dict[str, Any], stages: int) -> dict[str, Any]:
    return run | {"curve": [point for point in run["curve"] if point[0] <= stages], "tokens": run["tokens"][:stages]}


def _control(unaligned: dict[int, dict], aligned: dict[int, dict], stages: int) -> dict[int, dict[str, Any]]:
    """The unaligned runs, as many stages later as have the tokens of the alignment."""
    found = {}
    for seed in sorted(set(unaligned) & set(aligned)):
        run, cost = unaligned[seed], aligned[seed]["report"]
        tokens, extra = cost["tokens_decoded"] + cost["tokens_trained"], len(run["tokens"]) - stages
        more = next((k for k in range(extra + 1) if sum(run["tokens"][stages : stages + k]) >= tokens), None)
        if more is None:
            raise SystemExit(
                f"Seed {seed}: {extra} stages have fewer tokens than the alignment, {tokens}. Raise `EXTRA`."
            )
        found[seed] = _cut(run, stages + more) | {"more": more}
    return found


def _report_arm(
    arm: str, runs: dict[int, dict], never: dict[int, dict], paper: dict[str, tuple[float, float]]
) -> dict[str, Any]:
    """Print the figures of an arm, and return them."""
    accuracy = interval([final_accuracy(run) for run in runs.values()])
    found: dict[str, Any] = {"accuracy": _round(accuracy), "seeds": len(runs)}
    text = f"{arm:<14} accuracy {show(accuracy)}"
    paired = [final_accuracy(run) - final_accuracy(never[seed]) for seed, run in runs.items() if seed in never]
    if arm != "never_swapped" and len(paired) > 1:
        text += f"  minus never swapped {show(interval(paired))}, p {p_value(paired):.3f}"
        found["minus_never_swapped"] = _round(interval(paired))
    if any(run["report"] for run in runs.values()) and arm != CONTROL:
        measures = [_measure_of(run) for run in runs.values()]
        shock = interval([measure["shock"][0] for measure in measures])
        text += f"  shock {show(shock)}"
        if arm in paper:
            text += f" (paper: {paper[arm][0]}, then {paper[arm][1]})"
        found["shock"] = _round(shock)
        # Before the alignment some messages could not be shown to the new member, so that these are of another sample
        for name in ("agreement", *(["cross_entropy", "bits_per_byte"] if arm == "aligned" else [])):
            if any(measure[name] is None for measure in measures):
                continue
            value = interval([measure[name] for measure in measures])
            text += f"  {name} {show(value)}"
            found[name] = _round(value)
        found["bound"] = [measure["bound"] for measure in measures]
    if arm == CONTROL:
        text += f"  {np.mean([run['more'] for run in runs.values()]):.1f} stages more"
    if arm == "aligned":
        costs = [run["report"] for run in runs.values()]
        tokens = np.mean([cost["tokens_decoded"] + cost["tokens_trained"] for cost in costs])
        stage = np.mean([np.mean(run["tokens"]) for run in runs.values()])
        text += f"  alignment {tokens:.0f} tokens ({tokens / stage:.2f} stages), {np.mean([c['steps'] for c in costs]):.0f} steps"
        found["alignment_tokens"], found["stage_tokens"] = round(float(tokens)), round(float(stage))
    print(f"{text}  ({len(runs)} seeds)")
    return found


def _measure_of(run: dict[str, Any]) -> dict[str, Any]:
    """The last measurement of a swap: with the alignment, if there was one."""
    return run["report"]["aligned"] or run["report"]["unaligned"]


def _report_ratio(arms: dict[str, dict[int, dict]], found: dict[str, Any]):
    """The aligned shock against a third of each unaligned one, seed by seed; and the bound."""
    aligned = arms.get("aligned", {})
    for arm in ("none", "system_prompt", "thoughts_off"):
        both = [seed for seed in arms.get(arm, {}) if seed in aligned]
        if len(both) > 1:
            excess = [_shock(aligned[seed]) - _shock(arms[arm][seed]) / 3 for seed in both]
            print(f"shock aligned minus a third of that of {arm}: {show(interval(excess))}")
            found[f"excess_over_a_third_of_{arm}"] = _round(interval(excess))
    control = arms.get(CONTROL, {})
    gains = [final_accuracy(run) - final_accuracy(control[seed]) for seed, run in aligned.items() if seed in control]
    if len(gains) > 1:
        print(f"accuracy aligned minus {CONTROL}: {show(interval(gains))}, p {p_value(gains):.3f}")
        found["aligned_minus_more_training"] = [*_round(interval(gains)), round(p_value(gains), 4)]
    bounded = [
        (_shock(run), _measure_of(run)["bound"]) for run in aligned.values() if _measure_of(run)["bound"] is not None
    ]
    if bounded:
        mean = np.mean([bound for _, bound in bounded])
        print(
            f"aligned: the bound of the shock is {mean:.3f} on average; {sum(s > b for s, b in bounded)} of {len(bounded)} exceed it"
        )


def _shock(run: dict[str, Any]) -> float:
    return _measure_of(run)["shock"][0]


def _round(value: tuple[float, float, float]) -> list[float]:
    return [round(part, 6) for part in value]


def curve_rows(arms: dict[str, dict[int, dict]]) -> list[dict[str, Any]]:
    def shock(run: dict[str, Any]) -> float | None:
        return _shock(run) if run["report"] and _measure_of(run).get("shock") else None

    return [
        {"arm": arm, "seed": seed, "stage": stage, "accuracy": value, "shock": shock(run)}
        for arm, runs in arms.items()
        for seed, run in runs.items()
        for stage, value in run["curve"]
    ]
