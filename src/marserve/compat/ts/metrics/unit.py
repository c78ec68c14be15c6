"""The units of metrics and their full names."""

from marserve.service.metrics import UNITS


class Units:
    """The table of units.

    Attributes:
        units: full names by short ones.
    """

    def __init__(self) -> None:
        self.units = dict(UNITS)
