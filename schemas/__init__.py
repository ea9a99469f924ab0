"""What things are: jobs, sweeps, grids, profiles, categories, the lifecycle, results and errors."""
