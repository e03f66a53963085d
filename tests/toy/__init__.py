"""Small things of each kind that a user may add: what a seam needs, and nothing else."""
