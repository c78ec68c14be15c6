"""Starts, watches, restarts and scales the workers of a model version."""
