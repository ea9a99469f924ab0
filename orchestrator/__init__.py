"""Many jobs: which there are, when and where each runs, and what became of it."""
