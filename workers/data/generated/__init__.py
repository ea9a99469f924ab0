"""Draws animals with known parts, for machines without photographs."""
