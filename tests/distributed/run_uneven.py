"""
Runs in which the processes have unequal numbers of turns: routers that stop at random, call an agent in the rows of one
process only, or leave a process without a word. Each run is a rollout and an update of every agent. Also imported, for
one process.
"""

import faulthandler
import json
import random
import sys
from pathlib import Path

import shortcuts
import torch
from datasets import Dataset
from teams import make_team, weights_of
from tiny import PROMPTS, make_config
from transformers.trainer_callback import PrinterCallback

from trl_teamtr import TeamTRTrainer
from trl_teamtr.trust_region.snapshot import Snapshot


WATCHDOG = 60  # seconds for one run


def route(transcript):
    """Who speaks is a function of the run, of the row's place in the global batch, and of the turn."""
    run, row = divmod(transcript.seed, 1000)
    draw, turn = random.Random(f"{run}/{row}"), len(transcript.messages)
    kind = run % 4
    if kind == 0:  # each rollout stops at random, some at once
        return draw.choices(["x", "y", "z"], k=6)[turn] if turn < draw.randint(0, 5) else None
    if kind == 1:  # the first process calls x and y, the second one z
        return (("x", "y") if row < 4 else ("z",))[turn] if turn < (2 if row < 4 else 1) else None
    if kind == 2:  # the second process has nothing to do
        return "xyzx"[turn] if row < 4 and turn < 4 else None
    return "xyz"[(turn + row) % 3] if turn < row else None  # as many turns as the row's number


def letters(completions, transcripts, **kwargs):
    """Depends on every message, and bears a rollout without any."""
    texts = ["".join(message["content"] for message in messages) for messages in transcripts]
    return [(text.count("a") - 0.5 * text.count("u") + 0.1 * len(text)) / 4 for text in texts]


class Uneven(TeamTRTrainer):
    """Makes `runs` in place of the first stage, each from the same weights, and ends there."""

    def _run_stage(self, rows, order, **kwargs):
        self.found, start = [], [Snapshot(agent.engine) for agent in order]
        for run in range(self.runs):
            faulthandler.dump_traceback_later(WATCHDOG, exit=True)
            self.found.append(self.one_run(rows, order, run))
            for snapshot in start:
                snapshot.restore()
        faulthandler.cancel_dump_traceback_later()
        self.control.should_training_stop = True

    def one_run(self, rows, order, run):
        first = self.accelerator.process_index * len(rows)
        found = {"run": run, "reports": []}
        for agent in order:
            transcripts = self.team.turn_loop.begin(rows)
            for i, transcript in enumerate(transcripts):
                transcript.seed = 1000 * run + first + i
            self._begin_update(agent, rows)
            rollouts = self.team.turn_loop.run(transcripts)
            batch = agent._generate_and_score_completions(rows, rollouts)
            with self.residency.training(agent):
                report = agent.update(batch)
            found["reports"].append([report.num_messages, report.inner_steps, report.loss, report.kl, report.rejected])
        found["transcripts"] = [[[m.agent, list(m.ids)] for m in t.messages] for t in transcripts]
        found["norms"] = [sum(w.norm().item() for w in weights_of(agent).values()) for agent in order]
        return found


def run(models: Path, output_dir: Path, num_processes: int, runs: int) -> list[dict]:
    args = make_config(
        output_dir,
        per_device_train_batch_size=8 // num_processes,
        kl_estimator="exact",
        top_k=1,  # what is sampled must not depend on how the rows are spread over processes
        trust_region_radius=0.02,
        optim="sgd",  # Adam makes steps of full size out of the noise that is left of a gradient of zero
        learning_rate=0.1,
        num_rounds=2,
        allow_silent_agents=True,
    )
    dataset = Dataset.from_dict({"prompt": PROMPTS})
    team = make_team("mixed", models)
    trainer = Uneven(team, letters, args, train_dataset=dataset, router=route)
    trainer.remove_callback(PrinterCallback)
    trainer.runs = runs
    trainer.train()
    return trainer.found


if __name__ == "__main__":
    shortcuts.take()
    models, output, runs = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    found = run(models, output / "run", num_processes=2, runs=runs)
    rank = torch.distributed.get_rank()
    (output / f"uneven-{rank}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()
