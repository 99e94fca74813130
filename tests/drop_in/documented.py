"""What TRL's own tests may not find in a team: refusals and differences that are documented, and tests left out."""

import re


# What an error says (a regular expression), and why it is no fault
REFUSALS = {
    r"`sync_ref_model=True` is not supported": "refused: TRL's callback counts the updates of all agents for one",
    r"`use_liger_kernel=True` is not supported": "refused: Liger's fused loss does not return the log-probabilities",
    r"`vllm_mode='colocate'` runs vLLM in the process": "refused: vLLM is not installed",
    r"`use_transformers_continuous_batching=True` is not supported": "refused: agents generate with `generate`",
    r"`(tools|rollout_func|environment_factory)` (is|are) not supported": "refused: the turn loop generates",
}

# Tests of what is otherwise in a team, as documented
DIFFERENCES = {
    "test_train_with_adaptive_entropy_gradient_accumulation": "difference: `global_step` counts updates, and an update has "
    "up to `num_iterations` optimizer steps; the test counts one (README.md)",
    "test_train_with_mask_truncated_completions": "difference: before training an agent's sampling is checked on two rows; the "
    "`generate` that the test puts in place always returns three",
    "TestGRPORolloutDispatch": "refused: `rollout_func`; the test calls `_generate` of a trainer that was never made",
}

# Parts of the names of tests, and why they are left out
LEFT_OUT = {
    "TestGRPOTrainerVLM": "vision: models with images are not made locally, and datasets with images are refused",
    "TestGRPOTrainerSlow": "marked slow by TRL: needs Liger kernels, vLLM or a GPU",
}


def left_out(name: str) -> str | None:
    """Why a test is left out; `None` if it is run."""
    return next((reason for part, reason in LEFT_OUT.items() if part in name), None)


def why_documented(name: str, error: str) -> str | None:
    """The documented reason why a test fails with `error`; `None` if there is none."""
    refused = [reason for pattern, reason in REFUSALS.items() if re.search(pattern, error)]
    different = [reason for part, reason in DIFFERENCES.items() if part in name]
    return next(iter(refused + different), None)
