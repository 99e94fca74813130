"""
Groups by turn on processes with unequal numbers of turns, and an update of every agent on them. Also imported, for one
process, which is given the rollouts of both.
"""

import faulthandler
import json
import sys
from pathlib import Path

import shortcuts
import torch
from datasets import Dataset
from run_uneven import WATCHDOG, letters, route
from teams import make_team, weights_of
from tiny import BY_TURN, PROMPTS, make_config
from transformers.trainer_callback import PrinterCallback

from trl_teamtr import Message, TeamTRTrainer, Transcript
from trl_teamtr.rollouts.rollouts import replay


class Branching(TeamTRTrainer):
    """Updates every agent once, in place of the first stage, and ends there; `given` are rollouts to use instead of its own."""

    given: list[dict] | None = None

    def _run_stage(self, rows, order, **kwargs):
        faulthandler.dump_traceback_later(WATCHDOG, exit=True)
        self.found = []
        for number, agent in enumerate(order):
            self._begin_update(agent, rows)
            rollouts = self.branch(agent, rows, number) if self.given is None else self.replay(self.given[number])
            batch = agent._generate_and_score_completions(rows, rollouts)
            with self.residency.training(agent):
                report = agent.update(batch)
            self.found.append(
                {
                    "report": [report.num_messages, report.inner_steps, report.loss, report.kl, report.rejected],
                    "norm": sum(w.norm().item() for w in weights_of(agent).values()),
                    "rows": [{"prompt": t.prompt, "seed": t.seed} for t in rollouts.transcripts],
                    "said": [[[m.agent, m.text, list(m.ids)] for m in t.messages] for t in rollouts.transcripts],
                    "weights": rollouts.weights.tolist(),
                    "credited": None if rollouts.credited is None else rollouts.credited.tolist(),
                    "team_every": rollouts.team_every,
                }
            )
        faulthandler.cancel_dump_traceback_later()
        self.control.should_training_stop = True

    def branch(self, agent, rows, run):
        trunk_rows = self.branches.trunk_rows(rows)
        transcripts = self.team.turn_loop.begin(trunk_rows)
        for i, transcript in enumerate(transcripts):
            transcript.seed = 1000 * run + self.accelerator.process_index * len(trunk_rows) + i
        return self.branches.grow(self.team.turn_loop.run(transcripts), agent.name)

    def replay(self, given):
        transcripts = [
            Transcript(
                row["prompt"],
                self.team.names,
                seed=row["seed"],
                messages=[Message(name, text, tuple(ids), ids[-1] == 1) for name, text, ids in said],
            )
            for row, said in zip(given["rows"], given["said"], strict=True)
        ]
        rollouts = replay(transcripts, self.team.speakers)
        rollouts.weights, rollouts.team_every = torch.tensor(given["weights"]), given["team_every"]
        rollouts.credited = None if given["credited"] is None else torch.tensor(given["credited"])
        return rollouts


def run(
    models: Path, output_dir: Path, num_processes: int, credit: str, given: list[dict] | None = None
) -> list[dict]:
    args = make_config(
        output_dir,
        per_device_train_batch_size=16 // num_processes,
        num_generations=2,
        credit=credit,
        kl_estimator="exact",
        trust_region_radius=0.02,
        optim="sgd",
        learning_rate=0.1,
        num_rounds=2,
        allow_silent_agents=True,
        **BY_TURN,
    )
    dataset = Dataset.from_dict({"prompt": PROMPTS})
    trainer = Branching(make_team("mixed", models), letters, args, train_dataset=dataset, router=route)
    trainer.remove_callback(PrinterCallback)
    trainer.given = given
    trainer.train()
    return trainer.found


if __name__ == "__main__":
    shortcuts.take()
    models, output = Path(sys.argv[1]), Path(sys.argv[2])
    for credit in ("suffix", "message"):
        found = run(models, output / credit, num_processes=2, credit=credit)
        (output / f"{credit}-{torch.distributed.get_rank()}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()
