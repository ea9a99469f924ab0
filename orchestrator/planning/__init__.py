"""Decides which jobs a request consists of, and which of them still have to run."""
