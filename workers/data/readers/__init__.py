"""Reads data sets in their published layouts."""
