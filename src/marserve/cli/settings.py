"""``marserve settings``: every setting with its meaning, or those in effect with where they come from."""

import json

from marserve.cli.tables import print_table
from marserve.config.document import markdown
from marserve.config.kinds import SECRET
from marserve.config.loading import Loaded, variable_of
from marserve.config.setting import Setting
from marserve.config.settings import SETTINGS


def print_settings(form: str, dialect: str, in_effect: Loaded | None) -> None:
    """Print the settings of a dialect.

    Args:
        form: table, json or markdown (the docs page, whatever else is asked for).
        dialect: whose settings and defaults.
        in_effect: the settings to show with their sources; None for a list of all with their defaults.
    """
    if form == "markdown":
        print(markdown(), end="")
        return
    rows = _described(dialect) if in_effect is None else _effective(in_effect)
    if form == "json":
        print(json.dumps(rows, indent=2))
    else:
        print_table([name.replace("_", " ") for name in rows[0]], [list(row.values()) for row in rows])


def _described(dialect: str) -> list[dict[str, str]]:
    return [
        {
            "key": key,
            "type": setting.kind.name,
            "default": setting.defaults[dialect],
            "unit": setting.units[dialect],
            "environment": _variable(setting, dialect),
            "meaning": setting.meaning,
        }
        for key, setting in SETTINGS.items()
        if dialect in setting.dialects
    ]


def _variable(setting: Setting[object], dialect: str) -> str:
    """Return the environment variable of a setting, "" where the dialect reads none for it."""
    is_read = dialect == "native" or dialect in setting.known_to
    return variable_of(setting.key, dialect) if is_read else ""


def _effective(loaded: Loaded) -> list[dict[str, str]]:
    return [
        {"key": key, "value": _shown(setting, getattr(loaded.settings, key)), "source": loaded.sources[key]}
        for key, setting in SETTINGS.items()
        if loaded.settings.dialect in setting.dialects
    ]


def _shown(setting: Setting[object], value: object) -> str:
    return "(not shown)" if setting.kind is SECRET and value else setting.kind.show(value)
