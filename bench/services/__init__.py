"""The services that are measured, as archives."""
