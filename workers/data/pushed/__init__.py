"""Prepared photographs in the object store: pushed once, pulled once by each machine that lacks them."""
