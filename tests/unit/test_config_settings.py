"""The rows, the kinds of values, and settings that travel as JSON."""

from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marserve.config.address import Address
from marserve.config.kinds import ALL, NATIVE, ModelChoice, Notation, count, size, span
from marserve.config.setting import DIALECTS
from marserve.config.settings import SETTINGS, Settings, settings_of

PLAIN_SECONDS = Notation("s", takes_units=False)


def test_every_field_is_a_row_but_the_dialect_and_what_was_written() -> None:
    assert [field.name for field in fields(Settings)] == ["dialect", "written", *SETTINGS]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_default_can_be_read_and_shown(dialect: str) -> None:
    for setting in SETTINGS.values():
        value = setting.default(dialect)
        assert setting.kind.read(setting.kind.show(value), NATIVE) == value


def test_settings_without_arguments_are_the_native_defaults() -> None:
    assert Settings() == settings_of("native", {})


@pytest.mark.parametrize(
    ("key", "native", "torchserve", "mms"),
    [
        ("max_batch_delay", 0.0, 0.1, 0.1),
        ("default_workers_per_model", 1, 0, 0),
        ("default_response_timeout", 120.0, 120.0, 7200.0),
        ("default_startup_timeout", 120.0, 120.0, 120.0),
        ("job_timeout", 120.0, 0.0, 0.0),
        ("job_queue_size", 100, 100, 100),
        ("max_request_size", 64 * 1024**2, 6553500, 6553500),
        ("enable_model_api", True, False, True),
        ("enable_metrics_api", True, True, False),
        ("allowed_urls", (), ("file://.*|http(s)?://.*",), ("http(s)?://.*",)),
    ],
)
def test_defaults_that_differ_by_dialect(key: str, native: object, torchserve: object, mms: object) -> None:
    assert [getattr(settings_of(dialect, {}), key) for dialect in DIALECTS] == [native, torchserve, mms]


# --- kinds ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30", 30.0), ("30s", 30.0), ("500ms", 0.5), ("1.5 min", 90.0), ("2H", 7200.0), ("0", 0.0)],
)
def test_spans_are_seconds_inside(text: str, seconds: float) -> None:
    assert span().read(text, Notation("s")) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "size_in_bytes"),
    [("10", 10), ("10B", 10), ("10MB", 10_000_000), ("10MiB", 10 * 1024**2), ("0.5KiB", 512), ("1gb", 10**9)],
)
def test_sizes_are_bytes_inside(text: str, size_in_bytes: int) -> None:
    assert size().read(text, Notation("B")) == size_in_bytes


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "no number"),
        ("fast", "no number"),
        ("-1", "below the least, 0s"),
        ("3 days", "none of ms, s, min, h"),
        ("1,5", "no number"),
    ],
)
def test_spans_that_are_refused(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        span().read(text, Notation("s"))


def test_the_old_formats_take_plain_numbers_alone() -> None:
    assert span().read("30", PLAIN_SECONDS) == 30.0
    with pytest.raises(ValueError, match="carries a unit"):
        span().read("30s", PLAIN_SECONDS)


@pytest.mark.parametrize("text", ["1.5", "", "ten", "1e3"])
def test_counts_are_whole_numbers(text: str) -> None:
    with pytest.raises(ValueError, match="no whole number"):
        count().read(text, NATIVE)


def test_a_count_below_its_least_is_refused() -> None:
    with pytest.raises(ValueError, match="below the least, 1"):
        SETTINGS["batch_size"].read("0", "native")


def test_a_size_is_not_a_part_of_a_byte() -> None:
    with pytest.raises(ValueError, match="whole number of bytes"):
        size().read("1.0001KB", Notation("B"))


@pytest.mark.parametrize(
    ("text", "models"),
    [
        ("", ()),
        ("a.mar", (ModelChoice("", "a.mar"),)),
        ("=a.mar", (ModelChoice("", "a.mar"),)),
        (
            "a=a.mar, b = folder,,c.mar",
            (ModelChoice("a", "a.mar"), ModelChoice("b", "folder"), ModelChoice("", "c.mar")),
        ),
        ("my a.mar,my b=my b.mar", (ModelChoice("", "my a.mar"), ModelChoice("my b", "my b.mar"))),
        ("all,a=b.mar,c=", (ModelChoice("", "all"), ModelChoice("a", "b.mar"), ModelChoice("c", ""))),
        ("http://h/a.mar?x=1", (ModelChoice("", "http://h/a.mar?x=1"),)),
        ("a=http://h/a.mar?x=1", (ModelChoice("a", "http://h/a.mar?x=1"),)),
        ("model=/opt/ml/model", (ModelChoice("model", "/opt/ml/model"),)),
        ("ALL", (ModelChoice("", ALL),)),
    ],
)
def test_models_to_load(text: str, models: tuple[ModelChoice, ...]) -> None:
    assert SETTINGS["load_models"].read(text, "native") == models


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("blacklist_env_vars", "("),
        ("allowed_urls", "https://ok/.*,("),
        ("log_level", "loud"),
        ("decode_input_request", "yes"),
        ("inference_address", "8080"),
        ("cache_folder", ""),
        ("model_store", "~nobody-of-this-name/store"),
    ],
)
def test_other_values_that_are_refused(key: str, text: str) -> None:
    with pytest.raises(ValueError, match=r"^(is|has|names|begins|starts) "):
        SETTINGS[key].read(text, "native")


def test_patterns_are_cut_at_commas() -> None:
    assert SETTINGS["allowed_urls"].read("https://a/.*, https://b/.* ,", "native") == ("https://a/.*", "https://b/.*")


def test_a_home_folder_is_filled_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert SETTINGS["model_store"].read("~/store", "native") == Path("/home/me/store")


# --- listeners, workers, JSON --------------------------------------------------------------------------


def test_equal_addresses_are_one_listener() -> None:
    shared = Address("http", "127.0.0.1", 8080)
    settings = Settings(inference_address=shared, management_address=shared)
    assert settings.listeners() == [
        (shared, ("inference", "management")),
        (Address("http", "127.0.0.1", 8082), ("metrics",)),
    ]


def test_equal_addresses_with_port_0_are_apart() -> None:
    free = Address("http", "127.0.0.1", 0)
    settings = Settings(inference_address=free, management_address=free, metrics_address=free)
    assert [doors for _, doors in settings.listeners()] == [("inference",), ("management",), ("metrics",)]


def test_equal_sockets_are_one_listener() -> None:
    shared = Address("unix", path="/tmp/a.sock")
    settings = Settings(inference_address=shared, management_address=shared, metrics_address=shared)
    assert settings.listeners() == [(shared, ("inference", "management", "metrics"))]


def test_no_listener_for_metrics_that_are_off() -> None:
    assert [doors for _, doors in Settings(enable_metrics_api=False).listeners()] == [("inference",), ("management",)]


@pytest.mark.parametrize(
    ("dialect", "asked", "workers"),
    [("native", 0, 0), ("native", 3, 3), ("torchserve", 0, 8), ("torchserve", 2, 2), ("mms", 0, 8)],
)
def test_workers_of_a_model_loaded_at_start(dialect: str, asked: int, workers: int) -> None:
    settings = settings_of(dialect, {"default_workers_per_model": asked})
    assert settings.workers_at_start(device_count=8) == workers


@pytest.mark.parametrize("dialect", DIALECTS)
def test_defaults_survive_json(dialect: str) -> None:
    settings = settings_of(dialect, {})
    assert Settings.from_json(settings.to_json()) == settings


@given(
    delay=st.floats(0, 1e6),
    size_in_bytes=st.integers(1, 2**50),
    host=st.sampled_from(["127.0.0.1", "::1", "localhost"]),
    port=st.integers(0, 65535),
    names=st.lists(st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True), max_size=3),
    origin=st.text(alphabet=st.characters(codec="utf-8"), max_size=10),
)
def test_any_settings_survive_json(
    delay: float, size_in_bytes: int, host: str, port: int, names: list[str], origin: str
) -> None:
    settings = replace(
        Settings(),
        dialect="torchserve",
        max_batch_delay=delay,
        max_request_size=size_in_bytes,
        management_address=Address("https", host, port),
        load_models=tuple(ModelChoice(name, f"{name}.mar") for name in names if name != ALL),
        cors_allowed_origin=origin,
        log_location=Path("some where/logs"),
    )
    assert Settings.from_json(settings.to_json()) == settings
