"""Data models shared by all packages: jobs, sweeps, grids, profiles, categories, states, results and errors."""
