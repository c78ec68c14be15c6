"""Images, arrays and texts for MXNet; each function imports it when it is called."""
