"""What one row of the settings is made of."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from marserve.config.kinds import Kind, Notation

T = TypeVar("T")

#: The formats that a configuration may be written in; the command that starts the server picks one.
DIALECTS = ("native", "torchserve", "mms")


@dataclass(frozen=True, slots=True)
class Setting(Generic[T]):
    """One row.

    Attributes:
        key: its name in ``config.properties``.
        group: heading under which the docs list it.
        kind: how its value is read and shown.
        defaults: by dialect, as one would write it.
        units: by dialect, the unit of a plain number; "" where there is none.
        meaning: what it does.
        known_to: the old servers that have the key; for the others it is new.
        dialects: the dialects that take it.
    """

    key: str
    group: str
    kind: Kind[T]
    defaults: Mapping[str, str]
    units: Mapping[str, str]
    meaning: str
    known_to: tuple[str, ...]
    dialects: tuple[str, ...]

    def read(self, text: str, dialect: str) -> T:
        """Return the value of a text written in a dialect.

        Raises:
            ValueError: the end of a sentence that begins with the value.
        """
        return self.kind.read(text.strip(), Notation(self.units[dialect], takes_units=dialect == "native"))

    def default(self, dialect: str) -> T:
        """Return the value that counts when nobody gives one."""
        # Our own defaults may be written with units, whatever the dialect.
        return self.kind.read(self.defaults[dialect], Notation(self.units[dialect]))


def row(
    group: str,
    kind: Kind[T],
    default: str,
    meaning: str,
    *,
    unit: str = "",
    torchserve: str | None = None,
    mms: str | None = None,
    mms_unit: str | None = None,
    known_to: tuple[str, ...] = (),
    dialects: tuple[str, ...] = DIALECTS,
) -> T:
    """Return the dataclass field of one setting, typed as its value.

    A dialect for which no default or unit is given has the native one.
    """
    setting = Setting(
        key="",  # the field's name, which only the finished class knows
        group=group,
        kind=kind,
        defaults={"native": default, "torchserve": torchserve or default, "mms": mms or default},
        units={"native": unit, "torchserve": unit, "mms": mms_unit or unit},
        meaning=meaning,
        known_to=known_to,
        dialects=dialects,
    )
    made: Any = field(default_factory=lambda: setting.default("native"), metadata={"setting": setting})
    value: T = made
    return value
