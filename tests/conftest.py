"""Settings for all tests: no network, no telemetry, one thread."""

import os
import signal
from pathlib import Path


os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["CI"] = "1"  # TRL sends no telemetry then
os.environ.setdefault("WANDB_MODE", "offline")

import pytest  # noqa: E402
import shortcuts  # noqa: E402
import torch  # noqa: E402

from trl_teamtr import TeamTRConfig


torch.set_num_threads(1)

# What launches processes, or samples and trains long: left out by `make test-fast`
SLOW = (
    "cli/test_main.py::test_the_module",
    "cli/test_scripts.py",
    "cli/test_serve.py::test_a_server",
    "cli/test_train.py::test_ctrl_c",
    "cli/test_vllm_command.py::test_the_script_starts",
    "diagnostics/test_callback.py",
    "diagnostics/test_certificate_probe.py",
    "diagnostics/test_occupancy_probe.py",
    "distributed/",
    "maths/test_bounds.py",
    "maths/test_evaluation_metrics.py::test_interval",
    "maths/test_occupancy.py",
    "maths/test_turn_groups.py",
    "policy/generation/test_engine_fleet.py::test_messages_have_the_law",
    "policy/generation/test_fleet.py::test_messages_have_the_law",
    "reports/test_wandb_fallback.py",
    "returns/test_rewards.py::test_run_is_resumed",
    "rollouts/test_branches.py",
    "rollouts/test_drafts.py",
    "rollouts/test_exactness.py",
    "rollouts/test_forgetting.py",
    "rollouts/test_remote_drafts.py",
    "rollouts/test_resampling.py",
    "rollouts/test_stage_weights.py",
    "rollouts/test_tool_gradients.py",
    "runs/test_checkpoint.py",
    "runs/test_preemption.py",
    "runs/test_run_state.py",
    "serving/test_page.py",
    "tasks/tau2/test_tau2_environment.py",
    "tasks/tau2/test_tau2_reward.py",
    "test_architecture.py::test_floors",
    "test_benchmarks.py",
    "test_colocated_training.py",
    "test_distribution.py",
    "test_family_sweep.py",
    "test_grpo_parity.py",
    "test_kills.py",
    "test_remote_training.py",
    "test_recipes.py::test_the_team",
    "test_vllm_training.py",
    "test_site.py::test_it_is_built",
    "test_what_a_run_leaves.py",
)

# Whole launches of DeepSpeed between two that `make test` keeps, and long relatives of tests that it keeps: only
# `make test-all` runs them
NIGHTLY = (
    ("distributed/test_branches_on_processes.py", ""),
    ("distributed/test_engines.py", "float32_masters"),
    ("distributed/test_evaluation.py", "in_its_own_environment"),
    ("distributed/test_runs.py", "[multi_gpu"),
    ("distributed/test_runs.py", "test_two_machines"),
    ("distributed/test_runs.py", "[zero2"),
    ("distributed/test_engines.py", "[zero1"),
    ("distributed/test_engines.py", "[zero3_offload"),
    ("distributed/test_remote_processes.py", "fail_together"),
    ("distributed/test_uneven_turns.py", ""),
    ("distributed/test_colocated_processes.py", ""),
    ("distributed/test_engines.py", "[multi_gpu"),
    ("distributed/test_vllm_processes.py", "zero"),
    ("distributed/test_vllm_processes.py", "[None"),
    ("distributed/test_configs.py", "as_it_is["),
    ("distributed/test_configs.py", "turns_off_is_refused"),
    ("distributed/test_configs.py", "test_fsdp_is_refused"),
    ("distributed/test_partitioned_weights.py", "test_"),
    ("distributed/test_swaps.py", "test_"),
    ("runs/test_member_swap.py", "bit_for_bit[x]"),
    ("runs/test_member_swap.py", "start_anew_and_the_others_go_on[x]"),
    ("replacement/test_demonstrations.py", "aligned_to_its_calls"),
    ("replacement/test_replacing.py", "one[kl]"),
    ("replacement/test_replacing.py", "with_a_demonstrator"),
    ("cli/test_replace.py", "test_the_example"),
    ("cli/test_scripts.py", "test_preempted_script"),
    ("cli/test_scripts.py", "with_the_same_seed"),
    ("cli/test_train.py", "test_ctrl_c"),
    ("cli/test_scripts.py", "what_is_missing["),
    ("cli/test_scripts.py", "with_a_reward_of_ones_own"),
    ("cli/test_vllm_command.py", "starts_what_the_command_says"),
    ("maths/test_bounds.py", "turns_of_the_updated_agent_count"),
    ("reports/test_wandb_fallback.py", "server_cannot_be_reached"),
    ("policy/generation/test_engine_fleet.py", "verified_against[min_p]"),
    ("policy/generation/test_engine_fleet.py", "verified_against[truncated]"),
    ("policy/generation/test_engine_fleet.py", "verified_against[temperature]"),
    ("policy/generation/test_fleet.py", "verified_against["),
    ("rollouts/test_branches.py", "law_of_the_team[2-2-random"),
    ("rollouts/test_branches.py", "law_of_the_team[2-2-round"),
    ("rollouts/test_branches.py", "stopped[full-suffix]"),
    ("rollouts/test_branches.py", "stopped[suffix-"),
    ("rollouts/test_branches.py", "stopped[speculative-message]"),
    ("rollouts/test_branches.py", "of_their_own[full-"),
    ("rollouts/test_drafts.py", "[2-2-random-none"),
    ("test_recipes.py", "test_every_evaluation_runs[qwen3"),
    ("rollouts/test_drafts.py", "thoughts_are_private[full]"),
    ("rollouts/test_drafts.py", "thoughts_are_private[suffix]"),
    ("rollouts/test_drafts.py", "text-min_p"),
    ("rollouts/test_drafts.py", "text-top_k"),
    ("rollouts/test_drafts.py", "log_ratios[2-2-text"),
    ("rollouts/test_drafts.py", "round_robin-top_k"),
    ("rollouts/test_drafts.py", "test_the_test_can_tell"),
    ("rollouts/test_resampling.py", "[1-every 2]"),
    ("rollouts/test_drafts.py", "random-top_p"),
    ("rollouts/test_drafts.py", "log_ratios[3-1-random"),
    ("rollouts/test_drafts.py", "change_the_law[full]"),
    ("rollouts/test_exactness.py", "of_the_return[2-2]"),
    ("rollouts/test_exactness.py", "the_exact_distribution[2-2-3-round_robin]"),
    ("test_vllm_training.py", "test_the_best_team"),
    ("rollouts/test_remote_drafts.py", "updated_team[2-"),
    ("test_colocated_training.py", "[full]"),
    ("test_colocated_training.py", "scored_as_sampled[message]"),
    ("test_colocated_training.py", "best_team"),
    ("test_colocated_training.py", "correction"),
    ("test_colocated_training.py", "team_of_one"),
    ("test_distribution.py", "test_"),
    ("test_site.py", "test_it_is_built"),
    ("test_cookbook.py", "Serve a team"),
    ("test_cookbook.py", "A sweep over three seeds"),
    ("test_kills.py", "killed_runs_equal"),
    ("test_remote_training.py", "[suffix]"),
    ("test_remote_training.py", "dies_in_an_evaluation"),
    ("test_benchmarks.py", " --model]"),
    ("test_benchmarks.py", "[plan"),
    ("test_benchmarks.py", "[precision]"),
    ("test_benchmarks.py", "[reuse_learning]"),
    ("test_benchmarks.py", "[reproduce certificates]"),
    ("test_benchmarks.py", "[reproduce credit]"),
    ("test_benchmarks.py", "[reproduce defaults]"),
    ("test_benchmarks.py", "[reproduce learning_rates]"),
    ("test_benchmarks.py", "[reproduce smollm2_replacement]"),
    ("test_benchmarks.py", "[reproduce team_tasks]"),
    ("test_benchmarks.py", "[reproduce long_training]"),
    ("test_benchmarks.py", "[gradient_variance]"),
    ("test_benchmarks.py", "runs_on_a_cpu[stage]"),
    ("test_benchmarks.py", "[reproduce scaling]"),
    ("test_benchmarks.py", "[service_desk]"),
    ("test_benchmarks.py", "[overhead]"),
    ("test_benchmarks.py", "[resampling_cost]"),
    ("test_benchmarks.py", "[moving]"),
    ("test_benchmarks.py", "[vllm_link]"),
    ("test_benchmarks.py", "[reproduce ablations]"),
    ("test_benchmarks.py", "[reproduce cost]"),
    ("test_benchmarks.py", "[reproduce replacement]"),
    ("test_family_sweep.py", "test_other_architectures"),
    ("test_recipes.py", "test_the_study_of_n"),
    ("test_recipes.py", "test_the_stale_baseline"),
    ("tasks/tau2/test_tau2_reward.py", "[telecom-full]"),
)


def pytest_collection_modifyitems(config, items):
    here = Path(__file__).parent
    # Set by `make test-vllm`: the interpreter that starts real servers, and, in an environment that has vLLM, anything
    for variable, marker in (("TEAM_VLLM_PYTHON", "vllm"), ("TEAM_VLLM_ENGINES", "vllm_engine")):
        if variable not in os.environ:
            real = [item for item in items if item.get_closest_marker(marker)]
            config.hook.pytest_deselected(items=real)
            items[:] = [item for item in items if item not in real]
    for item in items:
        file = item.path.relative_to(here).as_posix()
        if f"{file}::{item.name}".startswith(SLOW):
            item.add_marker(pytest.mark.slow)
        if any(file == where and part in item.name for where, part in NIGHTLY):
            item.add_marker(pytest.mark.nightly)


@pytest.fixture(scope="session", autouse=True)
def ctrl_c_as_in_a_terminal():
    """Also where the tests run in the background, for which a shell has it ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def shortcuts_are_taken():
    shortcuts.take()


@pytest.fixture(autouse=True)
def seeded():
    torch.default_generator.manual_seed(0)  # `torch.manual_seed` notes a traceback for each kind of device, 6 ms


@pytest.fixture
def make_config(tmp_path):
    """Configs of runs in the test's folder."""

    def make(**kwargs):
        return TeamTRConfig(str(tmp_path / "run"), use_cpu=True, bf16=False, report_to="none", **kwargs)

    return make
