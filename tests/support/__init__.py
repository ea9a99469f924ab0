"""What several test modules share: builders, doubles, worlds and files in published formats."""
