"""Stores jobs and sweeps in MLflow, and decides which process may write what."""
