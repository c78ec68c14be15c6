"""Floors: the same service called in-process by something that does nothing else."""
