"""Measurements of marserve against floors: what a request costs beside calling the service oneself."""
