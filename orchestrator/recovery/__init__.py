"""Decides what is wrong with a store or a job, why, and what repairs it."""
