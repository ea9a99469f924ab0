"""Turns a user's own photographs and annotations into an imported data set."""
