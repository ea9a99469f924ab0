"""Decides how finished jobs become the paper's tables, with statistics and caveats."""
