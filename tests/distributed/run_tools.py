"""
Runs in which the processes have unequal numbers of calls of tools: each is a rollout and an update of every agent, with another
seed on each process. And an environment that cannot begin on one process.
"""

import faulthandler
import json
import sys
from pathlib import Path

import torch
from datasets import Dataset
from tiny import make_config
from tool_teams import PROMPT, Dial, tool_tokenizer
from transformers.trainer_callback import PrinterCallback

from trl_teamtr import Agent, TeamTRTrainer
from trl_teamtr.trust_region.snapshot import Snapshot


WATCHDOG = 60  # seconds for one run


class Limited(Dial):
    """Begins until it is told not to, on the second process alone."""

    broken = False

    def reset(self, **row):
        super().reset()
        if self.broken and torch.distributed.get_rank() == 1:
            raise OSError("no connection")


def letters(completions, transcripts, **kwargs):
    texts = ["".join(message["content"] for message in messages) for messages in transcripts]
    return [(text.count("a") - 0.5 * text.count("u") + 0.1 * len(text)) / 4 for text in texts]


class Uneven(TeamTRTrainer):
    """Makes `runs` in place of the first stage, each from the same weights, and ends there."""

    def _run_stage(self, rows, order, **kwargs):
        self.found, start = [], [Snapshot(agent.engine) for agent in order]
        for run in range(self.runs):
            faulthandler.dump_traceback_later(WATCHDOG, exit=True)
            torch.manual_seed(1000 * self.accelerator.process_index + run)
            self.found.append(self.one_run(rows, order))
            for snapshot in start:
                snapshot.restore()
        Limited.broken = True
        try:
            self.team.turn_loop.begin(rows)
            self.fault = None
        except RuntimeError as error:
            self.fault = str(error)
        faulthandler.cancel_dump_traceback_later()
        self.control.should_training_stop = True

    def one_run(self, rows, order):
        self.resampler.start_stage()
        found = {"reports": [], "calls": []}
        for agent in order:
            self._begin_update(agent, rows)
            rollouts = self.resampler.rollouts(rows)
            batch = agent._generate_and_score_completions(rows, rollouts)
            with self.residency.training(agent):
                before = Snapshot(agent.engine)
                report = agent.update(batch, before)
            self.resampler.agent_was_updated(agent.speaker, report, before)
            found["reports"].append([report.num_messages, report.inner_steps, report.loss, report.kl, report.rejected])
            uses = [len(message.tool_uses) for t in rollouts.transcripts for message in t.messages]
            found["calls"].append([sum(uses), max(uses)])
        return found


def run(models: Path, output_dir: Path, runs: int) -> Uneven:
    args = make_config(
        output_dir,
        per_device_train_batch_size=4,
        trust_region_radius=0.02,
        max_tool_calling_iterations=2,
        max_tool_result_length=1,
        resampling="speculative",
    )
    team = [Agent(name, str(models / name), processing_class=tool_tokenizer()) for name in ("x", "y")]
    dataset = Dataset.from_dict({"prompt": [PROMPT] * 8})
    trainer = Uneven(team, letters, args, train_dataset=dataset, environment_factory=Limited)
    trainer.remove_callback(PrinterCallback)
    trainer.runs = runs
    trainer.train()
    return trainer


if __name__ == "__main__":
    models, output, runs = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    trainer = run(models, output / "run", runs)
    rank = torch.distributed.get_rank()
    (output / f"tools-{rank}.json").write_text(json.dumps({"found": trainer.found, "fault": trainer.fault}))
    torch.distributed.destroy_process_group()
