"""Reads data sets in the layouts in which their owners publish them."""
