"""Updates on scripted rollouts; what happened is saved by each process. Also imported, for one process."""

import dataclasses
import sys
from pathlib import Path

import shortcuts
import torch
from datasets import Dataset
from teams import KINDS, equal, gradients_of, local_state, make_team, scripted_rollouts, weights_of
from tiny import PROMPTS, answer_reward, make_config
from trl.trainer.utils import shuffle_sequence_dict, split_tensor_dict

from trl_teamtr import TeamTRTrainer
from trl_teamtr.trust_region.snapshot import Snapshot


def as_dict(report) -> dict:
    """All numbers of a report."""
    fields = dataclasses.asdict(report)
    del fields["log_ratios"]  # of the process's own rows
    sampling = fields.pop("sampling")
    return fields | {f"sampling/{name}": value for name, value in sampling.items()}


class Probe(TeamTRTrainer):
    """Probes each agent in place of the first stage, and ends there."""

    def _run_stage(self, rows, order, **kwargs):
        self.found = {}
        for seed, agent in enumerate(order):
            with self.residency.training(agent):
                self.found[agent.name] = self.probe(agent, rows, seed)
        self.found["evaluation"] = {name: float(v) for name, v in self.evaluate().items() if "/tokens" in name}
        few = {n: self.evaluate(self.eval_dataset.take(n))["eval_reward"] for n in (1, 3)}
        self.found["rewards of few rows"] = few
        self.control.should_training_stop = True

    def score(self, agent, rows, seed):
        self._begin_update(agent, rows)
        return agent._generate_and_score_completions(rows, scripted_rollouts(self, rows, seed))

    def probe(self, agent, rows, seed):
        batch = self.score(agent, rows, seed)
        others = [local_state(member) for member in self.members if member is not agent]
        found = {"start": weights_of(agent), "num_messages": int(batch["num_messages_in_batch"])}
        micro_batches = split_tensor_dict(shuffle_sequence_dict(batch), self.args.steps_per_generation)
        for name in ("gradient", "gradient_again"):  # forgotten between the two
            for micro_batch in micro_batches:
                micro_batch.pop("old_per_token_logps", None)
            agent._accumulate(micro_batches)
            found[name] = gradients_of(agent)
            agent.engine.discard_gradients()
        found["reports"] = [agent.update(self.score(agent, rows, seed)), self.reject(agent, rows, seed, found)]
        found["reports"].append(agent.update(self.score(agent, rows, seed + 10)))
        found["reports"] = [as_dict(report) for report in found["reports"]]
        found["end"], found["kl"] = weights_of(agent), self.exact_kl(agent, rows, seed)
        found["others_unchanged"] = all(
            equal(local_state(m), before)
            for m, before in zip([m for m in self.members if m is not agent], others, strict=True)
        )
        found["engine"], found["optimizer"] = type(agent.engine).__name__, type(agent.engine.optimizer).__name__
        return found

    def reject(self, agent, rows, seed, found):
        """An update that no halving brings back into its radius."""
        before, weights, radius = local_state(agent), weights_of(agent), agent.radius
        agent.radius, agent.args.max_backtracks = 1e-12, 2
        report = agent.update(self.score(agent, rows, seed))
        agent.radius, agent.args.max_backtracks = radius, 10
        restored = equal(list(weights_of(agent).values()), list(weights.values()))
        found["rejection_restores"] = restored and equal(local_state(agent), before)
        return report

    def exact_kl(self, agent, rows, seed):
        """The exact KL of a step, measured from its snapshot; the weights before and after the measurement."""
        micro_batches = [self.score(agent, rows, seed)]
        snapshot = Snapshot(agent.engine)
        agent._accumulate(micro_batches)
        agent.engine.clip_gradients()
        agent.engine.step()
        after = local_state(agent)
        kl = agent.measure_kl(micro_batches, snapshot, "exact")
        assert equal(local_state(agent), after)
        return kl


def run(kind: str, models: Path, output_dir: Path, num_processes: int, **fields) -> dict:
    fields = {"loss_type": "dapo", "learning_rate": 1e-2, "trust_region_radius": 0.02, "kl_coef": 0.5} | fields
    args = make_config(
        output_dir,
        per_device_train_batch_size=8 // num_processes,
        steps_per_generation=2,
        num_generations=4,
        per_device_eval_batch_size=8 // num_processes,
        max_grad_norm=0.5,
        optim="adamw_torch",
        **fields,
    )
    dataset = Dataset.from_dict({"prompt": PROMPTS})
    trainer = Probe(make_team(kind, models), answer_reward, args, train_dataset=dataset, eval_dataset=dataset)
    trainer.train()
    found = trainer.found
    found["processes"] = trainer.accelerator.num_processes
    found["distributed_type"] = str(trainer.accelerator.distributed_type)
    return found


if __name__ == "__main__":
    shortcuts.take()
    models, output, bf16 = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:] == ["bf16"]
    for kind in KINDS:
        result = run(kind, models, output / kind, num_processes=2, bf16=bf16)
        torch.save(result, output / f"{kind}-{torch.distributed.get_rank()}.pt")
    torch.distributed.destroy_process_group()
