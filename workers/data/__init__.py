"""Turns generated animals or photographs into the arrays that a job trains on."""
