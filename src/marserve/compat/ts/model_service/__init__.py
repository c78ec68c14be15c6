"""Services as Multi Model Server had them, whose names TorchServe kept."""
