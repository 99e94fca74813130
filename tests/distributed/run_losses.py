"""The gradient of the first agent for each loss type, with unequal numbers of tokens on two processes."""

import sys
from pathlib import Path

import shortcuts
import torch
from datasets import Dataset
from run_probe import Probe
from teams import gradients_of, make_team
from tiny import PROMPTS, answer_reward, make_config


# All but "bnpo", which TRL divides by each process's own number of tokens (docs/distributed.md)
LOSSES = ("grpo", "dr_grpo", "dapo", "cispo", "sapo", "luspo", "vespo")


class Gradient(Probe):
    def probe(self, agent, rows, seed):
        batch = self.score(agent, rows, seed)
        agent._accumulate([batch])
        return gradients_of(agent)


def run(loss_type: str, models: Path, output_dir: Path, num_processes: int) -> dict[str, torch.Tensor]:
    args = make_config(output_dir, loss_type=loss_type, per_device_train_batch_size=8 // num_processes)
    dataset = Dataset.from_dict({"prompt": PROMPTS})
    trainer = Gradient(
        make_team("mixed", models)[:2], answer_reward, args, train_dataset=dataset, eval_dataset=dataset
    )
    trainer.train()
    return trainer.found["x"]


if __name__ == "__main__":
    shortcuts.take()
    models, output = Path(sys.argv[1]), Path(sys.argv[2])
    results = {loss_type: run(loss_type, models, output / loss_type, num_processes=2) for loss_type in LOSSES}
    torch.save(results, output / f"losses-{torch.distributed.get_rank()}.pt")
    torch.distributed.destroy_process_group()
