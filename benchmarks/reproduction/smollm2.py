"""
Two LoRA agents on SmolLM2-135M-Instruct, a solver and a checker, on reasoning-gym's chain_sum: full, stale, no radius,
and a single agent with as many decoded tokens. As long as it takes on two cores: hours.

The single agent makes as many updates as the team, each on twice the prompts, since a rollout of the team has two
messages.
"""

from pathlib import Path
from typing import Any

import numpy as np
from link_start import save_stand_in

from .cell import Cell, read, shrink, write_whole
from .statistics import final_accuracy, interval, report_differences, show, stability, tokens_per_stage, write_csv


MODEL = "runs/SmolLM2-135M-Instruct"  # `python scripts/prepare_smollm2.py` makes it
ARMS: dict[str, dict[str, Any]] = {
    "smollm2_full": {"resampling": "full"},
    "smollm2_stale": {"resampling": "stale"},
    "smollm2_no_radius": {"resampling": "full", "enforce_radius": False, "kl_coef": 0.0},
    "smollm2_single": {},
}
TASK = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}
HELD_OUT, PROMPTS = 100, 6


def cells(seeds: range, size: str) -> list[Cell]:
    arms = {"full": list(ARMS), "quick": ["smollm2_full"], "smoke": ["smollm2_full", "smollm2_single"]}[size]
    stages = 6 if size == "full" else 1
    found = [Cell(arm, 1 if arm.endswith("single") else 2, PROMPTS, s, stages) for s in seeds for arm in arms]
    return shrink(found, size)


def make_trainer(cell: Cell, model: str, output: Path):
    from peft import LoraConfig
    from quiet import QUIET
    from transformers.trainer_callback import PrinterCallback

    from trl_teamtr import Agent, TeamTRConfig, TeamTRTrainer
    from trl_teamtr.tasks import reasoning_gym
    from trl_teamtr.tasks.loading import hold_out

    single = cell.agents == 1
    held_out, count = (4, 40) if cell.smoke else (HELD_OUT, 4000)
    rows = reasoning_gym.make_dataset("chain_sum", count + held_out, cell.seed, **TASK)
    train, others = hold_out(rows, held_out, cell.seed)
    args = TeamTRConfig(
        str(output),
        seed=cell.seed,
        num_stages=cell.stages * (2 if single else 1),
        per_device_train_batch_size=(1 if cell.smoke else 8) * cell.prompts // 3,
        gradient_accumulation_steps=3 * (2 if single else 1),
        num_generations=2 if cell.smoke else 8,
        max_completion_length=12,
        temperature=0.8,
        num_iterations=3,
        learning_rate=4e-4,
        lr_scheduler_type="constant",
        trust_region_radius=0.3,
        **({"kl_coef": 0.02} | ARMS[cell.arm]),
        model_init_kwargs={"dtype": "bfloat16"},
        logging_steps=1,
        eval_strategy="steps",
        eval_on_start=True,
        eval_steps=2,
        per_device_eval_batch_size=held_out,
        num_generations_eval=1,
        **QUIET,
    )
    lora = LoraConfig(
        task_type="CAUSAL_LM", r=8, lora_alpha=16, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"]
    )
    prompts = {"solver": "You are a calculator. Reply with the number only."}
    if not single:
        prompts["checker"] = "You are a calculator that checks the solver. Reply with the number only."
    team = [Agent(name, model, system_prompt=prompt, peft_config=lora) for name, prompt in prompts.items()]
    trainer = TeamTRTrainer(team, reasoning_gym.reasoning_gym_reward, args, train_dataset=train, eval_dataset=others)
    trainer.remove_callback(PrinterCallback)
    return trainer


def run_cell(cell: Cell, folder: Path):
    """Train one team; write its held-out curve, what was logged, and its coordination at the end."""
    model = save_stand_in(folder / "model") if cell.smoke else MODEL
    trainer = make_trainer(cell, model, folder / "trainer")
    trainer.train()
    logs = trainer.state.log_history
    # Two updates are a stage, for the single agent too
    curve = [[log["step"] // 2, log["eval_reward"]] for log in logs if "eval_reward" in log]
    updates = [
        {name.split("/", 2)[-1] if name.startswith("agent/") else name: value for name, value in log.items()}
        for log in logs
        if "rollout/messages" in log
    ]
    result = {"cell": vars(cell), "curve": curve, "updates": updates, "coordination": _coordination(trainer)}
    write_whole(cell.path(folder), result)


def _coordination(trainer) -> float | None:
    """Of held-out episodes in which the solver was right, the share in which the checker is."""
    from trl_teamtr.evaluation import coordination
    from trl_teamtr.policy.evaluating import evaluating
    from trl_teamtr.tasks.reasoning_gym import reasoning_gym_reward

    rows = [row for row in trainer.eval_dataset for _ in range(2)]
    with evaluating([member.model for member in trainer.members]):
        transcripts = trainer.team.collect(rows).transcripts
    right = [
        [reasoning_gym_reward([m.text], [row["answer"]], [row["entry"]])[0] >= 1 for m in transcript.messages]
        for row, transcript in zip(rows, transcripts, strict=True)
    ]
    return coordination([each[:-1] for each in right], [each[-1] for each in right])


def report(folder: Path, seeds: range, size: str) -> dict[str, Any]:
    arms: dict[str, list[dict[str, Any]]] = {}
    for cell, result in read(folder, cells(seeds, size)):
        arms.setdefault(cell.arm, []).append(result)
    found: dict[str, Any] = {}
    rows = []
    print(f"\nSmolLM2-135M-Instruct, solver and checker, {HELD_OUT} held-out sums [95 % over seeds]")
    for arm, runs in arms.items():
        accuracy = interval([final_accuracy(run) for run in runs])
        together = [run["coordination"] for run in runs if run["coordination"] is not None]
        outside = np.mean([update.get("out_of_region_rate", 0.0) for run in runs for update in run["updates"]])
        print(
            f"{arm:<18} accuracy {show(accuracy)} (start {np.mean([run['curve'][0][1] for run in runs]):.3f})  stability "
            f"{np.mean([stability(run) for run in runs]):.3f}  coordination "
            f"{f'{np.mean(together):.3f}' if together else '-'}  out of region {outside:.3f}  tokens/stage "
            f"{np.mean([tokens_per_stage(run) for run in runs]):.0f}  ({len(runs)} seeds)"
        )
        found[arm] = {"accuracy": [round(value, 4) for value in accuracy], "out_of_region": round(float(outside), 4)}
        rows += [
            {"arm": arm, "seed": run["cell"]["seed"], "stage": stage, "accuracy": value}
            for run in runs
            for stage, value in run["curve"]
        ]
    report_differences(arms, found, lambda arm: "smollm2_full")
    write_csv(folder / "smollm2.csv", rows)
    return found
