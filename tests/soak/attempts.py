"""
One attempt at a run that is about to be killed: trains from the last checkpoint to the end, and keeps the score of its
phase on a board. As a script it is one of the processes that `accelerate launch` starts.
"""

import functools
import json
import os
import sys
import time
from pathlib import Path

import teams
import tiny
import torch
from board import SWAPPING_SECONDS, Board
from datasets import Dataset

from trl_teamtr import TeamTRTrainer, agent_trainer
from trl_teamtr.agent_trainer import AgentTrainer
from trl_teamtr.rollouts.resampling import Resampler
from trl_teamtr.trust_region.snapshot import Snapshot


# Logs, evaluations and stages end at different updates, so that most checkpoints hold metrics that are not yet logged
SETTINGS = {
    "num_rounds": 2,
    "save_strategy": "steps",
    "save_steps": 1,
    "save_total_limit": 2,
    "logging_steps": 3,
    "eval_strategy": "steps",
    "eval_steps": 2,
    "update_order": "random",
    "lr_scheduler_type": "linear",
    "learning_rate": 5e-3,
    "trust_region_radius": 0.05,
    "num_iterations": 4,
}


def watch(board: Board, record: Path):
    """Let the package tell `board` what it does, and write what the team was asked and said to `record`."""
    for owner, name, phase in (
        (AgentTrainer, "_accumulate", "inner_step"),
        (AgentTrainer, "_optimizer_step", "inner_step"),
        (TeamTRTrainer, "evaluate", "evaluation"),
        (TeamTRTrainer, "_save_checkpoint", "writing"),
    ):
        setattr(owner, name, _within(board, phase, getattr(owner, name)))
    _watch_rollouts(board, record)
    _watch_backtracking(board)
    _watch_files(board)


def _within(board: Board, phase: str, function):
    @functools.wraps(function)
    def wrapped(*args, **kwargs):
        with board.within(phase):
            return function(*args, **kwargs)

    return wrapped


def _watch_rollouts(board: Board, record: Path):
    begin, provide = TeamTRTrainer._begin_update, Resampler.rollouts
    append = os.open(record, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def _begin_update(self, agent, rows):
        board.update = self.state.global_step + 1
        begin(self, agent, rows)

    def rollouts(self, rows):
        with board.within("rollout"):
            found = provide(self, rows)
        line = {
            "update": board.update,
            "prompts": [row["prompt"] for row in rows],
            "transcripts": [str(transcript) for transcript in found.transcripts],
        }
        os.write(append, json.dumps(line).encode() + b"\n")  # one call, so that a kill cannot leave half a line
        os.fsync(append)
        return found

    TeamTRTrainer._begin_update, Resampler.rollouts = _begin_update, rollouts


def _watch_backtracking(board: Board):
    """From the first halving on, since most calls of `backtrack` have nothing to do."""
    backtrack, halve = agent_trainer.backtrack, Snapshot.halve

    def watched_backtrack(*args, **kwargs):
        try:
            return backtrack(*args, **kwargs)
        finally:
            if board.phase == "backtracking":
                board.switch("other")

    def watched_halve(self):
        if board.phase == "other":
            board.switch("backtracking")
        halve(self)

    agent_trainer.backtrack, Snapshot.halve = watched_backtrack, watched_halve


def _watch_files(board: Board):
    """Saving is slowed down, too, so that a kill can fall between any two of its steps."""
    rename, fsync, unlink = os.rename, os.fsync, os.unlink

    def slow_rename(source, target, **kwargs):
        rename(source, target, **kwargs)
        if board.phase in ("writing", "swapping"):
            board.switch("swapping" if os.path.basename(target).startswith("tmp-replaced-") else "tidying")
            time.sleep(SWAPPING_SECONDS)

    def slow_fsync(descriptor):
        fsync(descriptor)
        if board.phase in ("writing", "tidying"):
            time.sleep(0.001)

    def slow_unlink(path, **kwargs):
        unlink(path, **kwargs)
        if board.phase == "tidying":
            time.sleep(0.0005)

    os.rename, os.fsync, os.unlink = slow_rename, slow_fsync, slow_unlink


def make_trainer(run: Path, stages: int, models: Path | None, fresh: bool) -> TeamTRTrainer:
    """The tiny team, or with `models` the larger one of the distributed tests, on two processes."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    # After a resume other weights than at the start, which must not matter
    team = tiny.make_team(2, size=4, seed=0 if fresh else 9) if models is None else teams.make_team("mixed", models)
    dataset = Dataset.from_dict({"prompt": tiny.PROMPTS})
    batch = dict.fromkeys(("per_device_train_batch_size", "per_device_eval_batch_size"), 8 // processes)
    args = tiny.make_config(run / "team", num_stages=stages, **batch, **SETTINGS)
    return TeamTRTrainer(team, tiny.answer_reward, args, train_dataset=dataset, eval_dataset=dataset)


def attempt(run: Path, stages: int, resume: str | bool | None, models: Path | None = None):
    """
    Train until the end, or a kill.

    Args:
        run (`Path`): Folder of the run, in which everything is written.
        stages (`int`): Length of the run.
        resume (`str` or `bool`, *optional*): For `train(resume_from_checkpoint=...)`.
        models (`Path`, *optional*): The models of the distributed tests.
    """
    torch.set_num_threads(1)
    rank = int(os.environ.get("RANK", "0"))
    board = Board(run / "board" if rank == 0 else None)
    board.switch("starting")
    (run / f"pid-{rank}").write_text(str(os.getpid()))
    watch(board, run / f"record-{rank}.jsonl")
    trainer = make_trainer(run, stages, models, fresh=resume is None)
    trainer.train(resume_from_checkpoint=resume)
    result = {
        "weights": {member.name: teams.weights_of(member) for member in trainer.members},
        "weights and moments": {member.name: teams.local_state(member) for member in trainer.members},
        "learning rates": {member.name: member.lr_scheduler.get_last_lr() for member in trainer.members},
        "kl_coef": {member.name: member.controller.coef for member in trainer.members},
        "log_history": trainer.state.log_history,
    }
    torch.save(result, run / f"tmp-{rank}.pt")
    os.replace(run / f"tmp-{rank}.pt", run / f"result-{rank}.pt")


if __name__ == "__main__":
    attempt(Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3]), Path(sys.argv[4]))
    torch.distributed.destroy_process_group()
