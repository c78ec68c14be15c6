"""The handler of ``fizbuz_torch`` and ``fizbuz_script``: the FizBuz network run by torch.

``TorchService`` sees by the manifest whether the weights are a state dict with a model file, or TorchScript.
"""

from fizbuz_numbers import NextNumber

from marserve.service.torch import TorchService


class FizBuzTorchService(NextNumber, TorchService):
    """Says the word for the next number; ``NextNumber`` has the words, ``TorchService`` runs the network."""
