"""Turns the answers of the services into text for people and dictionaries for JSON."""
