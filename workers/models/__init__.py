"""Packs a trained network as an MLflow model, which runs without orch."""
