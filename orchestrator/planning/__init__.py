"""Decides which jobs a request means, and which of them are still to be run."""
