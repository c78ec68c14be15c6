"""Adds up each item of the list that an envelope has opened."""


def handle(data, context):
    """Return one sum an item."""
    if data is None:
        return None
    return [sum(item["data"] if isinstance(item, dict) else item) for item in data]
