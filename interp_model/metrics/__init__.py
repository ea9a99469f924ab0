"""Metrics of a trained network, as pure functions of tensors (Sec. 5.2)."""
