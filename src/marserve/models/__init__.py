"""What is served: names, versions, defaults, and what each version owns."""
