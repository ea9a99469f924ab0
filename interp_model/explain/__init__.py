"""Explanations of a trained network: receptive fields by occlusion, part distribution, filter contributions."""
