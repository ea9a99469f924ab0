"""Decides which job runs when and where, and what becomes of one that stopped."""
