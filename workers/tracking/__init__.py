"""Logs a job to its MLflow run, and buffers what could not be logged during an outage."""
