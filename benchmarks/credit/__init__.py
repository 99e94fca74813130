"""Teams whose rollouts can all be listed, and the exact mean and variance of the gradients of their agents."""
