"""What a trained network is judged by: pure functions of arrays."""
