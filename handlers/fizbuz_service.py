"""The handler of ``fizbuz_package``: the FizBuz network as an ONNX file, run by onnxruntime."""

from fizbuz_numbers import NextNumber

from marserve.service.onnx import OnnxService


class FizBuzService(NextNumber, OnnxService):
    """Says the word for the next number; ``NextNumber`` has the words, ``OnnxService`` runs the network."""
