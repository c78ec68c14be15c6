"""The HTTP doors: connection, routes, dialects."""
