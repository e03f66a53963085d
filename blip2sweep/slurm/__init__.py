"""Sweeps on Slurm: settings, submission, and the process of a job."""
