"""The worker process: finds the handler in an archive and runs batches through it."""
