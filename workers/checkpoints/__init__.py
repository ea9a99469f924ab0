"""Keeps checkpoints whole, and decides whose checkpoint counts."""
