"""Logs a job to its MLflow run, and keeps what a store that is away could not take."""
