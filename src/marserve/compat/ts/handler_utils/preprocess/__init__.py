"""Preprocessing on a GPU."""
