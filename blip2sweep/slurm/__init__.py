"""Sweeps on Slurm: settings, submission, the batch job."""
