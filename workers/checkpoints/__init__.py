"""Saves and reads checkpoints, and keeps a replaced attempt from writing over its successor."""
