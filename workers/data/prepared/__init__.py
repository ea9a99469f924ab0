"""Turns photographs into arrays of crops, once per machine."""
