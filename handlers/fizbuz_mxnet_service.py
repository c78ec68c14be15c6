"""The handler of ``fizbuz_mxnet``: the FizBuz network as an MXNet symbol and its parameters."""

from fizbuz_numbers import NextNumber

from marserve.service.mxnet import MXNetService


class FizBuzMXNetService(NextNumber, MXNetService):
    """Says the word for the next number; ``NextNumber`` has the words, ``MXNetService`` runs the network."""
