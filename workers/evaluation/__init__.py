"""Measures a trained network: accuracy, location instability, part interpretability."""
