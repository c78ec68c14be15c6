"""The export chain: a torch model as a file that can be served, held against the model that it was made of."""
