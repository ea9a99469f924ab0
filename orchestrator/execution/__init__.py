"""Decides which job runs when and where, and what happens to a job that stopped."""
