"""Fine-tuning: data, recipe, losses, the loop, checkpoints, processes."""
