"""Timers, micro-batching and text for handlers."""
