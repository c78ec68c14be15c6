"""Models that are spread over several devices."""
