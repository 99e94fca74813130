"""
Trains teams as told by a JSON file: a list of jobs, each with `output_dir`, config `fields`, and optionally
`preempt` (rank and update: that process gets a SIGTERM), `resume`, `die` (rank and update: that process ends without a word), `poison` (a file that the
checkpoint's optimizer states make if they are unpickled), or `replace` (a member, and the model that takes its place at the end).
"""

import json
import os
import pickle
import signal
import sys
import time
from pathlib import Path

import shortcuts
import torch
from datasets import Dataset
from teams import make_team, weights_of
from tiny import PROMPTS, answer_reward, make_config
from transformers import TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from trl_teamtr import Agent, TeamTRTrainer
from trl_teamtr.runs.manifest import write_manifest


class Interrupt(TrainerCallback):
    def __init__(self, output_dir, preempt=None, die=None):
        self.output_dir, self.preempt, self.die = Path(output_dir), preempt, die

    def on_optimizer_step(self, args, state, control, **kwargs):
        now = [int(os.environ.get("RANK", 0)), state.global_step]
        if self.die == now:
            (self.output_dir / "died").write_text(str(time.time()))
            os._exit(1)
        if self.preempt == now:
            os.kill(os.getpid(), signal.SIGTERM)


class Code:
    """Runs when it is unpickled."""

    def __init__(self, path: str):
        self.path = path

    def __reduce__(self):
        return Path.touch, (Path(self.path),)


def poison_and_resume(trainer: TeamTRTrainer, job: dict) -> str:
    """What is said when the last checkpoint's optimizer states hold code; its manifest knows of nothing."""
    checkpoint = Path(get_last_checkpoint(job["output_dir"]))
    if trainer.accelerator.is_main_process:
        for file in (*checkpoint.rglob("optimizer.pt"), *checkpoint.rglob("*optim_states.pt")):
            torch.save(Code(job["poison"]), file)
    trainer.accelerator.wait_for_everyone()
    write_manifest(str(checkpoint), trainer.accelerator)
    trainer.accelerator.wait_for_everyone()
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint))
    except pickle.UnpicklingError as error:
        return str(error)
    return "nothing"


def run(models: Path, job: dict, num_processes: int) -> dict:
    args = make_config(
        job["output_dir"],
        **{
            "per_device_train_batch_size": 8 // num_processes,
            "num_stages": 2,
            "save_strategy": "steps",
            "save_steps": 1,
            "update_order": "random",
            "trust_region_radius": 0.02,
            "report_to": "none",
        }
        | job.get("fields", {}),
    )
    interrupt = Interrupt(job["output_dir"], job.get("preempt"), job.get("die"))
    trainer = TeamTRTrainer(
        make_team(job.get("kind", "mixed"), models),
        answer_reward,
        args,
        train_dataset=Dataset.from_dict({"prompt": PROMPTS}),
        eval_dataset=Dataset.from_dict({"prompt": PROMPTS[:5]}),
        callbacks=[interrupt],
    )
    if "poison" in job:
        return {"refused": poison_and_resume(trainer, job)}
    trainer.train(resume_from_checkpoint=job.get("resume"))
    trainer.save_model()
    if "replace" in job:
        name, model = job["replace"]
        trainer.replace_agent(Agent(name, str(models / model)))
    timings = ("step_time", "train_runtime", "train_samples_per_second", "train_steps_per_second", "total_flos")
    timings += ("seconds/rollouts", "seconds/scoring", "seconds/update")
    return {
        "processes": trainer.accelerator.num_processes,
        "preempted": trainer.preemption.stopped_at,
        "best": trainer.state.best_global_step,
        "weights": {member.name: weights_of(member) for member in trainer.members},
        "moments": {
            member.name: [v for values in member.engine.optimizer.state.values() for v in values.values()]
            for member in trainer.trained_members
        },
        "coefs": [member.controller.coef for member in trainer.members],
        "logs": [{k: v for k, v in log.items() if k not in timings} for log in trainer.state.log_history[:-1]],
    }


if __name__ == "__main__":
    shortcuts.take()
    models, jobs, output = Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text()), Path(sys.argv[3])
    results = [run(models, job, num_processes=2) for job in jobs]
    torch.save(results, output / f"result-{torch.distributed.get_rank()}.pt")
    torch.distributed.destroy_process_group()
