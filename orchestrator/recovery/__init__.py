"""Decides what is wrong with a store or a job, why, and how to repair it."""
