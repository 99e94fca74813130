"""The methods of TRL and transformers that are overridden or called have the signatures that the code was written for."""

import ast
import inspect

import pytest
import transformers
import trl
from transformers import Trainer
from trl import GRPOTrainer

from trl_teamtr.agent_trainer import AgentTrainer
from trl_teamtr.lead_trainer import LeadTrainer
from trl_teamtr.teamtr_trainer import TeamTRTrainer


OVERRIDDEN = {
    "_generate": "self, prompts",
    "_generate_and_score_completions": "self, inputs",
    "_calculate_rewards": "self, inputs, prompts, completions, completion_ids_list",
    "_compute_loss": "self, model, inputs",
    "_prepare_inputs": "self, generation_batch",
    "_set_signature_columns_if_needed": "self",
    "train": "self, resume_from_checkpoint, trial, ignore_keys_for_eval",
    "_inner_training_loop": "self, batch_size, args, resume_from_checkpoint, trial, ignore_keys_for_eval",
    "_prepare_for_training": "self, max_steps, train_dataloader, resume_from_checkpoint",
    "_build_accelerator_args": "self, kwargs",
    "evaluate": "self, eval_dataset, ignore_keys, metric_key_prefix",
    "evaluation_loop": "self, dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix",
    "create_model_card": "self, model_name, dataset_name, tags",
    "_determine_best_metric": "self, metrics, trial",
    "save_model": "self, output_dir, _internal_call",
    "_save_checkpoint": "self, model, trial",
    "_push_from_checkpoint": "self, checkpoint_folder",
    "_load_from_checkpoint": "self, resume_from_checkpoint, model",
    "_load_best_model": "self",
    "_get_per_token_logps_and_entropies": "self, model, input_ids, attention_mask, logits_to_keep, batch_size, "
    "compute_entropy, compute_aux_loss, pixel_values, image_grid_thw, num_images, pixel_attention_mask, "
    "spatial_shapes, num_tiles, image_sizes, token_type_ids, mm_token_type_ids, image_position_ids",
}

CALLED = {
    "training_step": "self, model, inputs, num_items_in_batch",
    "_init_training_state": "self, max_steps, num_update_steps_per_epoch, num_train_epochs, resume_from_checkpoint, trial",
    "_maybe_log_save_evaluate": "self, tr_loss, grad_norm, model, trial, epoch, ignore_keys_for_eval, start_time, "
    "learning_rate",
    "_finalize_training": "self, trial, num_train_samples, start_time",
    "_evaluate": "self, trial, ignore_keys_for_eval, skip_scheduler",
    "_clip_grad_norm": "self, model",
    "_get_grad_norm": "self, model, grad_norm",
    "_get_learning_rate": "self",
    "_get_output_dir": "self, trial",
    "_save": "self, output_dir, state_dict",
    "_save_optimizer_and_scheduler": "self, output_dir",
    "_save_scaler": "self, output_dir",
    "_save_rng_state": "self, output_dir",
    "_load_rng_state": "self, checkpoint",
    "_log_completion_extra": "self, column, values",
    "store_flos": "self",
    "push_to_hub": "self, commit_message, blocking, token, revision, private, kwargs",
    "get_train_dataloader": "self",
}


@pytest.mark.parametrize("name, expected", (OVERRIDDEN | CALLED).items())
def test_signature_is_the_expected_one(name, expected):
    actual = ", ".join(inspect.signature(getattr(GRPOTrainer, name)).parameters)
    assert actual == expected, (
        f"`{name}` of TRL {trl.__version__} / transformers {transformers.__version__} now takes ({actual}); trl_teamtr "
        f"was written for ({expected}). Check what changed before widening the version range in pyproject.toml."
    )


def test_every_overridden_method_is_guarded():
    inherited = {name for name in vars(GRPOTrainer) | vars(Trainer) if callable(getattr(GRPOTrainer, name))}
    own = {
        name
        for cls in (AgentTrainer, LeadTrainer, TeamTRTrainer)
        for name, value in vars(cls).items()
        if callable(value)
    }
    assert {name for name in own & inherited if not name.startswith("__")} == set(OVERRIDDEN)


def test_overridden_methods_are_listed_in_the_docstrings():
    text = AgentTrainer.__doc__ + LeadTrainer.__doc__ + TeamTRTrainer.__doc__
    assert [name for name in OVERRIDDEN if f"`{name}`" not in text] == []


def test_constructor_takes_the_arguments_of_grpo_in_their_order():
    theirs = list(inspect.signature(GRPOTrainer.__init__).parameters)
    assert list(inspect.signature(TeamTRTrainer.__init__).parameters)[: len(theirs)] == theirs


# What trl_teamtr/trust_region/engines.py does with DeepSpeed's optimizers
ZERO_1_AND_2 = {
    "update_lp_params": "self",
    "zero_grad": "self, set_to_none",
    "reset_cpu_buffers": "self",
    "_clear_hp_buffer_references": "self",
    "_link_all_hp_params": "self",
}
ZERO_3 = {
    "_partition_all_parameters": "self",
    "_reassign_or_swap_out_partitioned_parameters": "self, sub_group_id",
    "_post_step": "self, timer_names",
    "_overflow_clean_up": "self, prev_scale",
}


@pytest.mark.parametrize("name, expected", (ZERO_1_AND_2 | ZERO_3).items())
def test_signature_of_deepspeed_is_the_expected_one(name, expected):
    import deepspeed
    from deepspeed.runtime.zero.stage3 import DeepSpeedZeroOptimizer_Stage3
    from deepspeed.runtime.zero.stage_1_and_2 import DeepSpeedZeroOptimizer

    optimizer = DeepSpeedZeroOptimizer_Stage3 if name in ZERO_3 else DeepSpeedZeroOptimizer
    # From the source, since a decorator of DeepSpeed hides some signatures
    (cls,) = ast.parse(inspect.getsource(optimizer)).body
    (method,) = [node for node in cls.body if isinstance(node, ast.FunctionDef) and node.name == name]
    actual = ", ".join(argument.arg for argument in method.args.args)
    assert actual == expected, (
        f"`{name}` of DeepSpeed {deepspeed.__version__}'s {optimizer.__name__} now takes ({actual}); "
        f"trl_teamtr/trust_region/engines.py was written for ({expected}). Check what changed before widening the version range."
    )


def test_functions_that_find_a_build_of_pytorch_take_what_is_expected():
    from torch.utils.cpp_extension import _get_build_directory

    assert list(inspect.signature(_get_build_directory).parameters) == ["name", "verbose"]


def test_planning_calls_what_makes_models_and_optimizers_without_weights():
    from accelerate.commands.config.config_args import load_config_from_file

    found = {
        name: list(inspect.signature(function).parameters)
        for name, function in (
            ("_from_config", transformers.PreTrainedModel._from_config),
            ("_can_set_experts_implementation", transformers.PreTrainedModel._can_set_experts_implementation),
            ("get_optimizer_cls_and_kwargs", Trainer.get_optimizer_cls_and_kwargs),
            ("load_config_from_file", load_config_from_file),
        )
    }
    assert found == {
        "_from_config": ["config", "kwargs"],
        "_can_set_experts_implementation": [],
        "get_optimizer_cls_and_kwargs": ["args", "model"],
        "load_config_from_file": ["config_file"],
    }


def test_what_is_called_of_trl_for_vllm_servers_takes_what_is_expected():
    from trl.experimental.async_grpo import async_grpo_trainer
    from trl.experimental.async_grpo.vllm_client import VLLMClient

    called = ("save_lora_adapter", "validate_lora_for_vllm_sync", "round_lora_rank")
    found = {name: ", ".join(inspect.signature(getattr(async_grpo_trainer, name)).parameters) for name in called}
    methods = ("__init__", "wait_for_server_ready", "get_server_info", "load_lora_adapter", "unload_lora_adapter")
    found |= {name: ", ".join(inspect.signature(getattr(VLLMClient, name)).parameters) for name in methods}
    assert found == {
        "save_lora_adapter": "model, accelerator, adapter_name, dest_dir",
        "validate_lora_for_vllm_sync": "model",
        "round_lora_rank": "adapter_rank",
        "__init__": "self, server_url, server_timeout",
        "wait_for_server_ready": "self, poll_interval_s",
        "get_server_info": "self",
        "load_lora_adapter": "self, lora_name, lora_path, timeout",
        "unload_lora_adapter": "self, lora_name, timeout",
    }


def test_what_is_called_for_vllm_engines_takes_what_is_expected():
    from accelerate.utils import patch_environment
    from accelerate.utils.memory import clear_device_cache
    from transformers.core_model_loading import revert_weight_conversion
    from trl.trainer.utils import ensure_master_addr_port

    called = (patch_environment, clear_device_cache, revert_weight_conversion, ensure_master_addr_port)
    found = {each.__name__: ", ".join(inspect.signature(each).parameters) for each in called}
    assert found == {
        "patch_environment": "kwargs",
        "clear_device_cache": "garbage_collection",
        "revert_weight_conversion": "model, state_dict",
        "ensure_master_addr_port": "addr, port",
    }
