"""What a door may ask: predictions, and the management of models."""
