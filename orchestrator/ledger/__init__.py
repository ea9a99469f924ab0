"""Remembers jobs and sweeps in MLflow, and decides who may write what."""
