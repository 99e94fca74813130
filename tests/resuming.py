"""Runs that stop, and what two runs must agree in to be the same."""

import torch
from transformers import TrainerCallback


class StopAfter(TrainerCallback):
    def __init__(self, updates):
        self.updates = updates

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop |= state.global_step == self.updates


SETTINGS = {
    "num_stages": 5,  # 4 stages are an epoch, so that the run passes one
    "save_strategy": "steps",
    "save_steps": 1,
    "update_order": "random",
    "lr_scheduler_type": "linear",
    "trust_region_radius": 0.05,
}


def final_state(trainer):
    weights = [torch.cat([p.detach().flatten() for p in m.model.parameters()]) for m in trainer.members]
    timings = ("step_time", "train_runtime", "train_samples_per_second", "train_steps_per_second", "total_flos")
    timings += ("seconds/rollouts", "seconds/scoring", "seconds/update")
    logs = [{k: v for k, v in log.items() if k not in timings} for log in trainer.state.log_history[:-1]]
    return weights, [m.optimizer.state_dict()["state"] for m in trainer.members], logs
