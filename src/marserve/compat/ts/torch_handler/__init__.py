"""The built-in handlers; these modules import torch when they are imported, as their originals do."""
