"""Checks addresses, stores and machines before a sweep needs them, and says what to type where one is wrong."""
