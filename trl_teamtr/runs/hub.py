"""Pushes a team to the hub during training."""

import os
from typing import Any

from huggingface_hub import upload_folder
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, HubStrategy
from transformers.utils.hub import PushInProgress


def push(trainer: Any, checkpoint: str):
    """
    Upload the saved team and, if `hub_strategy` says so, the checkpoint, in the background.

    Args:
        trainer ([`~transformers.Trainer`], untyped, since it declares attributes as `None`): The lead of the team.
        checkpoint (`str`): The checkpoint just written. The team is in the output directory.
    """
    args, before = trainer.args, trainer.push_in_progress
    if not trainer.is_world_process_zero() or args.hub_strategy == HubStrategy.END:
        return
    busy = before is not None and not before.is_done()
    if busy and not args.hub_always_push:
        return
    trainer.callback_handler.on_push_begin(args, trainer.state, trainer.control)
    uploads: list[tuple[str, str | None, list[str] | None]] = [
        (args.output_dir, None, ["_*", f"{PREFIX_CHECKPOINT_DIR}-*", "tmp-*", ".vllm/*"])
    ]
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
    all_jobs: Any = (before.jobs if busy else []) + jobs  # declared as one job, and used as a list
    trainer.push_in_progress = PushInProgress(all_jobs)
