"""Which parts a network uses, and what each filter adds to its answer."""
