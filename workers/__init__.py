"""Runs one job on one machine: data, training, evaluation, checkpoints, figures, logging; holds the only Ray actor."""
