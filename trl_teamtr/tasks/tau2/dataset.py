"""Rows of τ²-bench's domains."""

from datasets import Dataset

from .domain import load_domain


TASK = [{"role": "user", "content": "A customer contacts the customer service of a company."}]
ASSISTANT = (
    "You are the customer service agent. Help the customer as the policy allows. Say what the customer needs to know; what "
    "you do through tools is not shown to the customer."
)


def make_dataset(domain: str, split: str = "base") -> Dataset:
    """
    Rows of a domain: `prompt`, `agent_prompts` (the policy for `assistant`, guidelines and scenario for `user`), and
    `task_id` and `domain` for [`~trl_teamtr.tasks.tau2.environment.Tau2Environment`] and the reward.

    Args:
        domain (`str`): `"airline"`, `"retail"` or `"telecom"`.
        split (`str`): τ²-bench's `"base"`, `"train"` or `"test"`, in telecom also `"small"` and `"full"`.

    Raises:
        `ValueError`: If the domain has no such split.
        `ImportError`: If inspect-evals is not installed.
    """
    loaded = load_domain(domain)
    if split not in loaded.splits:
        raise ValueError(f"{domain!r} has no split {split!r}. Choose one of {', '.join(loaded.splits)}.")
    ids = loaded.splits[split]
    assistant = f"{ASSISTANT}\n\n{loaded.policy}"
    private = [
        {
            "assistant": assistant,
            "user": f"{loaded.guidelines}\n\n<scenario>\n{loaded.tasks[each].user_scenario}\n</scenario>",
        }
        for each in ids
    ]
    return Dataset.from_dict(
        {"prompt": [TASK] * len(ids), "agent_prompts": private, "task_id": ids, "domain": [domain] * len(ids)}
    )
