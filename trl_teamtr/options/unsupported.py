"""Options of TRL that a team does not support, each with an alternative."""

from enum import Enum

from accelerate.utils import parse_flag_from_env
from trl import GRPOConfig

from .checking import check


def refuse_unsupported(args: GRPOConfig):
    """Raise `ValueError` if `args` sets an option that `TeamTRTrainer` does not support."""
    check(
        not args.use_transformers_continuous_batching,
        "`use_transformers_continuous_batching=True` is not supported yet. Leave it `False`; the agents generate with "
        "`generate` of transformers.",
    )
    check(
        not args.enable_jit_checkpoint,
        "`enable_jit_checkpoint=True` is not supported: it saves in the middle of an update, each process for "
        "itself. Leave it `False`; on SIGTERM TeamTRTrainer always finishes the update, saves and stops.",
    )
    check(
        not (args.fsdp or parse_flag_from_env("ACCELERATE_USE_FSDP")),
        "FSDP is not supported: the trust region reverts updates on the weights themselves, and does not handle "
        "FSDP's shards. Use ZeRO-3, which shards the same tensors: accelerate_configs/zero3.yaml.",
    )
    check(
        not args.sync_ref_model,
        "`sync_ref_model=True` is not supported: TRL's callback counts the updates of all agents for the first "
        "one's reference model. The trust region already anchors each update at the current policy; use `beta` "
        "for a fixed reference.",
    )
    check(
        args.neftune_noise_alpha is None,
        "`neftune_noise_alpha` is not supported: with noise in the embeddings the KL of two equal policies is not 0, "
        "and nearly every update would leave the radius.",
    )
    check(
        args.lr_scheduler_type != "reduce_lr_on_plateau",
        "`lr_scheduler_type='reduce_lr_on_plateau'` is not supported: it follows one metric, and each agent has "
        "its own schedule. Use another, or `EarlyStoppingCallback`.",
    )
    check(
        args.lr_scheduler_type != "greedy",
        "`lr_scheduler_type='greedy'` is not supported: it follows one metric, and each agent has its own schedule. "
        "Use another.",
    )
    check(
        not str(args.optim.value if isinstance(args.optim, Enum) else args.optim).startswith("schedule_free"),
        f"`optim={args.optim}` is not supported: such an optimizer has other weights for training than for generation, "
        "and the trust region measures one policy. Use another.",
    )
    sections = args.deepspeed_plugin.deepspeed_config if args.deepspeed_plugin is not None else {}
    owned = [name for name in ("optimizer", "scheduler") if name in sections]
    check(
        not owned,
        f"The DeepSpeed config has the section(s) {', '.join(owned)}, with which DeepSpeed steps the schedule at every inner "
        "iteration, not once per update. Remove them; set `optim`, `learning_rate` and `lr_scheduler_type` instead.",
    )
    check(
        not args.use_liger_kernel,
        "`use_liger_kernel=True` is not supported. Use `model_init_kwargs={'use_kernels': True}` instead.",
    )
