"""Training on a mix: models, optimisers, the compiled loop, checkpoints, what is kept of each evaluation."""
