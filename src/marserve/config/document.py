"""The docs page of the settings, ``docs/settings.md``, made from the rows."""

from collections.abc import Iterable, Sequence
from itertools import groupby

from marserve.config.inert import BY_REASON
from marserve.config.setting import Setting
from marserve.config.settings import SETTINGS

_HEAD = """\
# Settings

This page is printed by `marserve settings --markdown`.

A setting is a line `key=value` in a file in the grammar of `java.util.Properties`: `=`, `:` or blanks between key
and value, `#` and `!` for comments, a backslash at the end to go on in the next line, `\\uXXXX` for any character.
Files are UTF-8. `$$NAME$$` in a value stands for the environment variable `NAME`; without it no server starts.

`marserve settings --config FILE` shows what a file comes to, with the source of each value.

"""
_SOURCES = (
    ("", "`marserve` (native)", "`torchserve`", "`multi-model-server`, `mxnet-model-server` (mms)"),
    ("---", "---", "---", "---"),
    (
        "file",
        "`--config`, else `MARSERVE_CONFIG_FILE`, else none",
        "`TS_CONFIG_FILE`, else `--ts-config`, else the newest [snapshot](api-management.md#snapshots) unless "
        "there is `--ncs`, else `./config.properties`",
        "`MMS_CONFIG_FILE`, else `--mms-config`, else `./config.properties`",
    ),
    (
        "environment",
        "`MARSERVE_<KEY>`, always",
        "`TS_<KEY>`, if the file says `enable_envvars_config=true`, and for `TS_ALLOWED_URLS` also "
        "`use_env_allowed_urls=true`; `LOG_LOCATION`, `METRICS_LOCATION`",
        "`MMS_<KEY>`, if the file says `enable_envvars_config=true`; `LOG_LOCATION`, `METRICS_LOCATION`",
    ),
    (
        "who wins, strongest first",
        "command line, environment, file, default",
        "environment, command line, file, default",
        "environment, command line, file, default",
    ),
    (
        "numbers",
        "`30`, or with a unit: `500ms`, `30s`, `5min`, `1h`; `64KiB`, `10MB` (1000²), `10MiB` (1024²)",
        "plain",
        "plain",
    ),
    (
        "unknown keys, settings without effect",
        "an error that names them",
        "a warning that names them",
        "a warning that names them",
    ),
)
_LEGEND = """
The type of a number tells the unit that a plain one has. A default is that of every command, unless another is
told for one. Keys marked *new* are unknown to both old servers; in a file of theirs they take effect all the same,
and a warning says so.
"""
_INERT = """
## Keys of the old servers without effect

In an old server's file these are warnings, in a native one errors.

"""


def markdown() -> str:
    """Return the page."""
    parts = [_HEAD, *(_line(row) for row in _SOURCES), _LEGEND]
    for group, settings in groupby(SETTINGS.values(), key=lambda setting: setting.group):
        parts.append(f"\n## {group}\n\n")
        parts.append(_table(("key", "type", "default", "meaning"), map(_cells, settings)))
    parts.append(_INERT)
    reasons = ((", ".join(f"`{key}`" for key in keys.split()), reason) for reason, keys in BY_REASON.items())
    parts.append(_table(("keys", "because"), reasons))
    return "".join(parts)


def _cells(setting: Setting[object]) -> Sequence[str]:
    return _key(setting), _type(setting), _default(setting), setting.meaning


def _key(setting: Setting[object]) -> str:
    if "native" not in setting.dialects:
        return f"`{setting.key}` ({', '.join(setting.dialects)} alone)"
    return f"`{setting.key}`" if setting.known_to else f"`{setting.key}` *new*"


def _type(setting: Setting[object]) -> str:
    units = {dialect: unit for dialect, unit in setting.units.items() if unit != setting.units["native"]}
    others = "".join(f"; {dialect}: {unit}" for dialect, unit in units.items())
    return setting.kind.name + (f", {setting.units['native']}{others}" if setting.kind.is_quantity else "")


def _default(setting: Setting[object]) -> str:
    native = setting.defaults["native"]
    others = [f"{dialect}: `{text}`" for dialect, text in setting.defaults.items() if text != native]
    return "; ".join(([f"`{native}`"] if native else ["none"]) + others)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "".join(_line(row) for row in (columns, ["---"] * len(columns), *rows))


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"
