"""From generated animals or photographs to the arrays that a job trains on."""
