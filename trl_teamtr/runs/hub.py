"""Pushing a team to the hub while it trains."""

import os

from huggingface_hub import upload_folder
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, HubStrategy
from transformers.utils.hub import PushInProgress
from trl import GRPOTrainer


def push(trainer: GRPOTrainer, checkpoint: str):
    """
    Upload the saved team and, if `hub_strategy` says so, the checkpoint, in the background.

    Args:
        trainer ([`~trl.GRPOTrainer`]): The lead of the team. Its output directory holds the team.
        checkpoint (`str`): The checkpoint just written.
    """
    args = trainer.args
    if not trainer.is_world_process_zero() or args.hub_strategy == HubStrategy.END:
        return
    busy = trainer.push_in_progress is not None and not trainer.push_in_progress.is_done()
    if busy and not args.hub_always_push:
        return
    trainer.callback_handler.on_push_begin(args, trainer.state, trainer.control)
    uploads = [(args.output_dir, None, ["_*", f"{PREFIX_CHECKPOINT_DIR}-*", "tmp-*"])]
    if args.hub_strategy == HubStrategy.CHECKPOINT:
        uploads.append((checkpoint, "last-checkpoint", None))
    elif args.hub_strategy == HubStrategy.ALL_CHECKPOINTS:
        uploads.append((checkpoint, os.path.basename(checkpoint), None))
    jobs = [
        upload_folder(
            repo_id=trainer.hub_model_id,
            folder_path=folder,
            path_in_repo=target,
            commit_message=f"Training in progress, update {trainer.state.global_step}",
            token=args.hub_token,
            revision=args.hub_revision,
            ignore_patterns=ignored,
            run_as_future=True,
        )
        for folder, target, ignored in uploads
    ]
    trainer.push_in_progress = PushInProgress((trainer.push_in_progress.jobs if busy else []) + jobs)
