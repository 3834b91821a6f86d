"""Training: preflight, the optimiser's step, the loop, checkpoints."""
