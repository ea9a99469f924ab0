"""Trains one network, reproducibly, from its starting weights."""
