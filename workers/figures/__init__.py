"""Figures of trained networks: curves, filters, receptive fields, part distributions and explanations."""
