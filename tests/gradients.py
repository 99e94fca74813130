"""Gradients of a member on rollouts that are all listed: by its trainer's own loss."""

import torch


def flat(gradient) -> torch.Tensor:
    """Gradients of all parameters as one vector."""
    return torch.cat([own.flatten() for own in gradient])


def surrogate_gradient(agent, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Gradient of the trainer's own loss on `batch`, which has `advantages`, at π_new = π_cur."""
    batch = batch | {"num_items_in_batch": torch.tensor(1.0), "num_messages_in_batch": torch.tensor(1.0)}
    agent.model.train()
    agent.current_gradient_accumulation_steps = 1
    agent.model.zero_grad()
    agent._compute_loss(agent.model, batch).backward()
    gradient = [parameter.grad.clone() for parameter in agent.model.parameters()]
    agent.model.zero_grad()
    return flat(gradient)


def all_together(agent, rows: list[dict], rollouts, probabilities: torch.Tensor) -> torch.Tensor:
    """
    The gradient of the loss of `agent` on the batch that its trainer makes of all rollouts of its team as one group, each weighted
    by its probability, in the scale of the mean return. With `scale_rewards="none"` and `loss_type="dr_grpo"`.
    """
    agent.model.train()
    agent.num_generations = len(rows)
    rollouts.weights = len(rows) * probabilities
    batch = agent._generate_and_score_completions(rows, rollouts)
    return -agent.max_completion_length * surrogate_gradient(agent, batch)
