"""Turns finished jobs into the paper's tables, with the statistics and caveats that belong to them."""
