"""Archives: reading, checking and writing .mar files and folders; standard library at module level."""
