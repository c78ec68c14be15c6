"""Envelopes: an orchestrator's wrapping around a body."""
