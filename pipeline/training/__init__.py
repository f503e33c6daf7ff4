"""Pruning and training together: fine-tuning, and cuts and trainings in turns."""
