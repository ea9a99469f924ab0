"""Draws what a network has learned."""
