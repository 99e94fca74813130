"""A progress bar with the metrics of a team's training."""

from transformers.trainer_callback import ProgressCallback


class TeamProgressCallback(ProgressCallback):
    """The usual progress bar over updates, with the team's reward and the KL of the last update beside it."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not state.is_world_process_zero or self.training_bar is None or "reward" not in (logs or {}):
            return
        shown = {"reward": logs["reward"]}
        for key, value in logs.items():
            kind, _, rest = key.partition("/")
            if kind == "agent" and rest.endswith("/kl"):
                shown[rest.removesuffix("/kl") + " KL"] = value
        self.training_bar.set_postfix({key: f"{value:.3f}" for key, value in shown.items() if value is not None})

    def on_prediction_step(self, args, state, control, eval_dataloader=None, **kwargs):
        pass  # an evaluation is a few batches, too short for a second bar
