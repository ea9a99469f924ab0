"""One job on one machine: data, training, evaluation, checkpoints, figures, logging; the only Ray actor."""
