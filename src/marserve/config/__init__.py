"""Settings: one row each, and the text format that they are read from."""
