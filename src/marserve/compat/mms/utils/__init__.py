"""What services of Multi Model Server import beside their base classes."""
