"""Settings from a file, the environment and the command line, checked as a whole.

Who wins, strongest first: native: command line, environment, file, default; the old servers' formats:
environment, command line, file, default. What is wrong is collected and told in one error.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

from marserve.config.checks import find_conflicts
from marserve.config.inert import INERT
from marserve.config.kinds import FLAG
from marserve.config.properties import Entry, parse
from marserve.config.setting import DIALECTS
from marserve.config.settings import SETTINGS, Settings, settings_of
from marserve.errors import ConfigError

#: The names that environment variables begin with.
ENVIRONMENT_PREFIX = {"native": "MARSERVE_", "torchserve": "TS_", "mms": "MMS_"}
#: Variables of the old servers that are not their prefix, once, and the key.
_ODD_VARIABLES = {"TS_TOKEN_EXPIRATION_MIN": "TS_TOKEN_EXPIRATION_TIME_MIN"}
#: Variables of ours that are no setting: the file to read.
CONFIG_FILE_VARIABLE = "MARSERVE_CONFIG_FILE"
#: Keys of the old formats that steer how the rest is read.
_STEERING = ("enable_envvars_config", "use_env_allowed_urls")
_STEERING_REASON = f"{ENVIRONMENT_PREFIX['native']}… variables are always read"
#: What TorchServe's snapshots note of themselves, by which nothing is steered.
_NOTES = ("version", "tsConfigFile", "python")
#: Keys that TorchServe takes from no variable.
_FILE_ONLY = (
    "models",
    "model_snapshot",
    "metric_time_interval",
    "system_metrics_cmd",
    "vmargs",
    "plugins_path",
    "use_native_io",
    "io_ratio",
    "version",
)
#: Variables that an old server reads at each start anew: no snapshot keeps them.
_LOCATIONS = ("LOG_LOCATION", "METRICS_LOCATION")
#: Keys for whose wrong values the old servers took the default, where a server that does not start is worse.
_LENIENT = ("metrics_mode", "token_expiration_min")
#: Words of which the old servers took an empty one for none.
_MAY_BE_EMPTY = ("service_envelope", "keystore_type")
#: What Kubernetes puts into the environment beside a service that is called marserve.
_KUBERNETES = re.compile(
    r"MARSERVE(_\w+)?_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)=.*"
    r"|MARSERVE(_\w+)?_PORT=\w+://.*"
)
_VARIABLE = re.compile(r"\$\$([^$]+)\$\$")


class Loaded(NamedTuple):
    """The settings, what the user should be warned of, and by key where each value comes from."""

    settings: Settings
    warnings: list[str]
    sources: dict[str, str]


class _Given(NamedTuple):
    """A value as somebody wrote it, and the place where."""

    text: str
    place: str


def load_settings(
    config: str | Path | None = None,
    overrides: Mapping[str, str] | None = None,
    dialect: str = "native",
    environ: Mapping[str, str] | None = None,
) -> Loaded:
    """Read, merge and check the settings.

    Args:
        config: the file to read, or the text of one; None for none.
        overrides: values of the command line by key, in the dialect's notation.
        dialect: one of ``DIALECTS``.
        environ: the environment; None for an empty one.

    Raises:
        ConfigError: a line a problem: unknown keys, values that cannot be, settings that contradict each other
            or have no effect. In an old server's format the last are warnings.
    """
    if dialect not in DIALECTS:
        raise ConfigError(f"There is no dialect {dialect}.", f"Take one of {', '.join(DIALECTS)}.")
    text, name = _file(config, dialect)
    return _Loading(dialect, environ or {}).load(parse(text, name), name, overrides or {})


def _file(config: str | Path | None, dialect: str) -> tuple[str, str]:
    if not isinstance(config, Path):
        return config or "", "config.properties"
    try:
        raw = config.read_bytes()
    except OSError as error:
        raise ConfigError(f"The configuration {config} cannot be read: {error.strerror}.") from None
    try:
        return raw.decode("utf-8-sig"), str(config)
    except UnicodeDecodeError as error:
        if dialect != "native":
            return raw.decode("iso-8859-1"), str(config)  # as Java reads every such file
        raise ConfigError(
            f"The configuration {config} is not UTF-8: byte {error.start}.", r"Write the character as \uXXXX."
        ) from None


class _Loading:
    """One run of ``load_settings``, collecting what it finds."""

    def __init__(self, dialect: str, environ: Mapping[str, str]) -> None:
        self.dialect = dialect
        self.environ = environ
        self.errors: list[str] = []
        self.warnings: list[str] = []

    def load(self, entries: Mapping[str, Entry], name: str, overrides: Mapping[str, str]) -> Loaded:
        """Merge the layers, read the values, check them together."""
        in_file = self._from_file(entries, name)
        in_environment = dict(self._from_environment(in_file))
        flags = {key: _Given(text, "command line") for key, text in overrides.items()}
        layers = [in_file, in_environment, flags] if self.dialect == "native" else [in_file, flags, in_environment]
        given = {key: value for layer in layers for key, value in layer.items() if self._has_effect(key, value)}
        values = self._values(given)
        settings = replace(settings_of(self.dialect, values), written=tuple(_written(layers)))
        sources = {key: given[key].place if key in given else "default" for key in SETTINGS}
        if settings.default_response_timeout_seconds >= 0:  # stronger than the MMS key in minutes
            settings = replace(settings, default_response_timeout=settings.default_response_timeout_seconds)
            sources["default_response_timeout"] = sources["default_response_timeout_seconds"]
        tell = {"wrong": self.errors.append, "ineffective": self._ineffective, "risky": self.warnings.append}
        # A value that could not be read would be compared as its default.
        for sentence, severity in find_conflicts(settings, values.keys()) if len(values) == len(given) else ():
            tell[severity](sentence)
        if self.errors:
            raise ConfigError("\n".join(self.errors))
        return Loaded(settings, self.warnings, sources)

    def _from_file(self, entries: Mapping[str, Entry], name: str) -> dict[str, _Given]:
        found = {}
        for key, (text, line, earlier) in entries.items():
            place = f"{name} line {line}"
            if earlier:
                self._ineffective(f"{name} line {earlier[-1]}: {key} is set again on line {line}, which counts.")
            if self._is_new(key):
                self.warnings.append(f"{place}: {key} is new: the old server passed it over, here it takes effect.")
            found[key] = _Given(self._substitute(text, key, place), place)
        return found

    def _is_new(self, key: str) -> bool:
        """Tell whether the server that the file was written for did not have this setting."""
        setting = SETTINGS.get(key)
        if setting is None or self.dialect == "native":
            return False
        return self.dialect in setting.dialects and self.dialect not in setting.known_to

    def _substitute(self, text: str, key: str, place: str) -> str:
        def value_of(found: re.Match[str]) -> str:
            if found[1] not in self.environ:
                self.errors.append(f"Invalid Environment Variable {found[1]}: {place} puts it into {key}; set it.")
            return self.environ.get(found[1], "")

        return _VARIABLE.sub(value_of, text)

    def _from_environment(self, in_file: Mapping[str, _Given]) -> Iterator[tuple[str, _Given]]:
        if self.dialect == "native":
            prefix = ENVIRONMENT_PREFIX[self.dialect]
            for variable, text in self.environ.items():
                if variable.startswith(prefix) and not _is_foreign(variable, text):
                    key = variable.removeprefix(prefix).lower()
                    yield key, _Given(text, f"environment variable {variable}")
            return
        for variable in _LOCATIONS:
            if variable in self.environ:
                yield variable.lower(), _Given(self.environ[variable], f"environment variable {variable}")
        if self.dialect == "torchserve" and self.environ.get("TS_OPEN_INFERENCE_PROTOCOL") == "oip":
            place = "environment variable TS_OPEN_INFERENCE_PROTOCOL"
            yield "ts_open_inference_protocol", _Given("true", place)
        if not _is_on(in_file, "enable_envvars_config"):
            return
        known = [key for key, setting in SETTINGS.items() if self.dialect in setting.known_to]
        for key in (*known, *INERT):  # these are told about, as they are in a file
            variable = variable_of(key, self.dialect)
            if variable not in self.environ or key in _FILE_ONLY:
                continue
            if self.environ[variable] == "oip":
                continue
            if key == "allowed_urls" and not _is_on(in_file, "use_env_allowed_urls"):
                self.warnings.append(f"{variable} has no effect: the file does not say use_env_allowed_urls=true.")
                continue
            yield key, _Given(self.environ[variable], f"environment variable {variable}")

    def _has_effect(self, key: str, given: _Given) -> bool:
        """Tell whether the key is a setting of this dialect; what is to be said of it is collected."""
        if key in SETTINGS and self.dialect in SETTINGS[key].dialects:
            return True
        if key in _STEERING and self.dialect != "native":
            return False
        if key in _NOTES and self.dialect == "torchserve":
            return False
        reason = INERT.get(key, _STEERING_REASON if key in _STEERING else "")
        if reason:
            self._ineffective(f"{given.place}: {key} has no effect: {reason}.")
        else:
            self._ineffective(f"{given.place}: unknown setting {key}.{_nearest(key, self.dialect)}")
        return False

    def _values(self, given: Mapping[str, _Given]) -> dict[str, object]:
        values = {}
        for key, (text, place) in given.items():
            if self.dialect != "native" and key in _MAY_BE_EMPTY and not text.strip():
                values[key] = SETTINGS[key].default(self.dialect)
                continue
            try:
                values[key] = SETTINGS[key].read(self._as_flag(key, text, place), self.dialect)
            except ValueError as error:
                if key in _LENIENT and self.dialect != "native":
                    default = SETTINGS[key].defaults[self.dialect]
                    self.warnings.append(f"{place}: {key}={text} {error}; {default} counts.")
                    values[key] = SETTINGS[key].default(self.dialect)
                else:
                    self.errors.append(f"{place}: {key}={text} {error}.")
        return values

    def _as_flag(self, key: str, text: str, place: str) -> str:
        """Java reads every word but ``true`` as false; an old file may rely on it."""
        is_flag = SETTINGS[key].kind is FLAG
        if not is_flag or self.dialect == "native" or text.strip().lower() in ("true", "false"):
            return text
        self.warnings.append(f"{place}: {key}={text} counts as false; write true or false.")
        return "false"

    def _ineffective(self, sentence: str) -> None:
        (self.errors if self.dialect == "native" else self.warnings).append(sentence)


def _written(layers: Sequence[Mapping[str, _Given]]) -> Iterator[tuple[str, str]]:
    """Yield key and text of what was given, the strongest of each."""
    given = {key: value for layer in layers for key, value in layer.items()}
    for key, (text, place) in given.items():
        if place.removeprefix("environment variable ") not in _LOCATIONS:
            yield key, text


def variable_of(key: str, dialect: str) -> str:
    """Return the environment variable of a setting."""
    prefix = ENVIRONMENT_PREFIX[dialect]
    plain = prefix + key.upper().removeprefix(prefix)
    return _ODD_VARIABLES.get(plain, plain)


def _is_foreign(variable: str, value: str) -> bool:
    return variable == CONFIG_FILE_VARIABLE or _KUBERNETES.fullmatch(f"{variable}={value}") is not None


def _is_on(in_file: Mapping[str, _Given], key: str) -> bool:
    return key in in_file and in_file[key].text.strip().lower() == "true"


def _nearest(key: str, dialect: str) -> str:
    known = [name for name, setting in SETTINGS.items() if dialect in setting.dialects]
    close = get_close_matches(key.lower(), known, n=1)
    return f" Did you mean {close[0]}?" if close else " `marserve settings` lists what there is."
