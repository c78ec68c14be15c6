"""Files, environment and command line together: who wins, what is refused, what is warned of."""

from pathlib import Path

import pytest

from marserve.config.address import Address
from marserve.config.inert import INERT
from marserve.config.kinds import ModelChoice
from marserve.config.loading import ENVIRONMENT_PREFIX, Loaded, load_settings
from marserve.config.setting import DIALECTS
from marserve.config.settings import SETTINGS
from marserve.errors import ConfigError

OLD = ("torchserve", "mms")


def refused(*args: object) -> list[str]:
    """Return the lines of the error that loading raises."""
    with pytest.raises(ConfigError) as caught:
        load_settings(*args)  # type: ignore[arg-type]
    return str(caught.value).splitlines()


# --- files ---------------------------------------------------------------------------------------------


def test_no_file_at_all_is_the_defaults() -> None:
    loaded = load_settings()
    assert loaded.settings.job_queue_size == 100
    assert loaded.warnings == []
    assert set(loaded.sources.values()) == {"default"}


def test_a_value_of_a_file_with_its_source(tmp_path: Path) -> None:
    path = tmp_path / "my.properties"
    path.write_text("# queue\njob_queue_size = 7\n")
    loaded = load_settings(path)
    assert loaded.settings.job_queue_size == 7
    assert loaded.sources["job_queue_size"] == f"{path} line 2"


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert refused(tmp_path / "no.properties") == [
        f"The configuration {tmp_path / 'no.properties'} cannot be read: No such file or directory."
    ]


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    path = tmp_path / "my.properties"
    path.write_bytes(b"\xef\xbb\xbfjob_queue_size=7\n")
    assert load_settings(path).settings.job_queue_size == 7


def test_latin_1_is_an_error_in_our_format_and_read_as_java_does_in_the_old_ones(tmp_path: Path) -> None:
    path = tmp_path / "my.properties"
    path.write_bytes("model_store=mödels\n".encode("iso-8859-1"))
    assert "is not UTF-8: byte 13." in refused(path)[0]
    assert load_settings(path, dialect="torchserve").settings.model_store == Path("mödels")


def test_every_problem_is_told_at_once_with_its_line() -> None:
    told = refused("job_queue_size=none\nbatch_size=0\nlog_level=loud\n")
    assert told == [
        "config.properties line 1: job_queue_size=none is no whole number.",
        "config.properties line 2: batch_size=0 is below the least, 1.",
        "config.properties line 3: log_level=loud is none of debug, info, warning, error.",
    ]


def test_an_unknown_dialect_is_refused() -> None:
    assert refused("", {}, "triton") == ["There is no dialect triton. Take one of native, torchserve, mms."]


# --- unknown and ineffective keys ----------------------------------------------------------------------


def test_an_unknown_key_is_an_error_with_the_nearest_one() -> None:
    assert refused("job_queue_sise=3") == [
        "config.properties line 1: unknown setting job_queue_sise. Did you mean job_queue_size?"
    ]


def test_an_unknown_key_far_from_all_points_to_the_list() -> None:
    assert refused("xyzzy=3") == [
        "config.properties line 1: unknown setting xyzzy. `marserve settings` lists what there is."
    ]


@pytest.mark.parametrize("dialect", OLD)
def test_an_unknown_key_is_a_warning_in_an_old_format(dialect: str) -> None:
    loaded = load_settings("NUM_TURTLES=1\njob_queue_size=3", {}, dialect)
    assert loaded.settings.job_queue_size == 3
    assert len(loaded.warnings) == 1
    assert "line 1: unknown setting NUM_TURTLES." in loaded.warnings[0]


@pytest.mark.parametrize("key", sorted(INERT.keys() - {"version"}))  # which snapshots have, see below
def test_an_inert_key_is_an_error_in_ours_and_a_warning_in_the_old_formats(key: str) -> None:
    expected = f"config.properties line 1: {key} has no effect: {INERT[key]}."
    assert refused(f"{key}=1") == [expected]
    for dialect in OLD:
        assert load_settings(f"{key}=1", {}, dialect).warnings == [expected]


def test_no_key_is_both_a_setting_and_inert() -> None:
    assert not set(SETTINGS) & set(INERT)


def test_a_key_that_is_set_twice_is_named() -> None:
    text = "job_queue_size=3\nbatch_size=2\njob_queue_size=4"
    sentence = "config.properties line 1: job_queue_size is set again on line 3, which counts."
    assert refused(text) == [sentence]
    loaded = load_settings(text, {}, "torchserve")
    assert sentence in loaded.warnings
    assert loaded.settings.job_queue_size == 4


def test_a_new_key_takes_effect_in_an_old_file_and_is_told() -> None:
    loaded = load_settings("batch_size=4", {}, "torchserve")
    assert loaded.settings.batch_size == 4
    assert loaded.warnings == [
        "config.properties line 1: batch_size is new: the old server passed it over, here it takes effect."
    ]


def test_the_switch_for_the_environment_is_an_error_in_our_format() -> None:
    assert refused("enable_envvars_config=true") == [
        "config.properties line 1: enable_envvars_config has no effect: MARSERVE_… variables are always read."
    ]


def test_a_key_of_another_dialect_is_unknown() -> None:
    assert "unknown setting default_response_timeout_seconds" in refused("default_response_timeout_seconds=3")[0]


# --- values by dialect ---------------------------------------------------------------------------------


def test_units_in_our_format_alone() -> None:
    assert load_settings("max_batch_delay=2s").settings.max_batch_delay == 2.0
    assert refused("max_batch_delay=2s", {}, "torchserve")[-1] == (
        "config.properties line 1: max_batch_delay=2s carries a unit, and this format takes a plain number of ms."
    )


@pytest.mark.parametrize(("dialect", "seconds"), [("native", 2.0), ("torchserve", 2.0), ("mms", 120.0)])
def test_the_response_timeout_is_minutes_for_mms(dialect: str, seconds: float) -> None:
    assert load_settings("default_response_timeout=2", {}, dialect).settings.default_response_timeout == seconds


def test_the_mms_timeout_in_seconds_is_the_stronger() -> None:
    text = "default_response_timeout=2\ndefault_response_timeout_seconds=3"
    loaded = load_settings(text, {}, "mms")
    assert loaded.settings.default_response_timeout == 3.0
    assert loaded.sources["default_response_timeout"] == "config.properties line 2"


def test_the_mms_timeout_in_seconds_is_unset_at_minus_1() -> None:
    text = "default_response_timeout=2\ndefault_response_timeout_seconds=-1"
    assert load_settings(text, {}, "mms").settings.default_response_timeout == 120.0


@pytest.mark.parametrize(("text", "value"), [("TRUE", True), ("False", False)])
def test_flags_in_either_case(text: str, value: bool) -> None:
    for dialect in DIALECTS:
        assert load_settings(f"decode_input_request={text}", {}, dialect).settings.decode_input_request is value


def test_other_words_are_false_in_java_and_an_error_here() -> None:
    loaded = load_settings("decode_input_request=yes", {}, "torchserve")
    assert loaded.settings.decode_input_request is False
    assert loaded.warnings == [
        "config.properties line 1: decode_input_request=yes counts as false; write true or false."
    ]
    assert refused("decode_input_request=yes") == [
        "config.properties line 1: decode_input_request=yes is neither true nor false."
    ]


@pytest.mark.parametrize(
    ("key", "plain", "secure"),
    [("inference_address", 80, 443), ("management_address", 8081, 8444), ("metrics_address", 8082, 8445)],
)
def test_addresses_without_a_port(key: str, plain: int, secure: int) -> None:
    pair = "certificate_file=c\nprivate_key_file=k\n"
    http = load_settings(f"{key}=http://127.0.0.1").settings
    https = load_settings(f"{pair}{key}=https://127.0.0.1").settings
    assert getattr(http, key) == Address("http", "127.0.0.1", plain)
    assert getattr(https, key) == Address("https", "127.0.0.1", secure)


# --- $$NAME$$ ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", DIALECTS)
def test_variables_are_filled_into_the_values_of_a_file(dialect: str) -> None:
    environ = {"ROOT": "/srv", "PORT": "81"}
    text = "model_store=$$ROOT$$/models\ninference_address=http://127.0.0.1:$$PORT$$$$PORT$$"
    settings = load_settings(text, {}, dialect, environ).settings
    assert settings.model_store == Path("/srv/models")
    assert settings.inference_address.port == 8181


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_missing_variable_stops_the_start(dialect: str) -> None:
    assert refused("model_store=$$NO_SUCH$$", {}, dialect, {})[0] == (
        "Invalid Environment Variable NO_SUCH: config.properties line 1 puts it into model_store; set it."
    )


# --- who wins ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dialect", "variable", "winner"),
    [
        ("native", "MARSERVE_JOB_QUEUE_SIZE", "command line"),
        ("torchserve", "TS_JOB_QUEUE_SIZE", "environment variable TS_JOB_QUEUE_SIZE"),
        ("mms", "MMS_JOB_QUEUE_SIZE", "environment variable MMS_JOB_QUEUE_SIZE"),
    ],
)
def test_who_wins(dialect: str, variable: str, winner: str) -> None:
    switch = "" if dialect == "native" else "enable_envvars_config=true\n"
    file, environ, flags = f"{switch}job_queue_size=1", {variable: "2"}, {"job_queue_size": "3"}

    def source(*given: object) -> str:
        loaded: Loaded = load_settings(given[0], given[1], dialect, given[2])  # type: ignore[arg-type]
        return loaded.sources["job_queue_size"]

    assert source(switch, {}, {}) == "default"
    assert source(file, {}, {}).startswith("config.properties line")
    assert source(file, {}, environ) == f"environment variable {variable}"
    assert source(file, flags, {}) == "command line"
    assert source(file, flags, environ) == winner


@pytest.mark.parametrize("dialect", OLD)
def test_the_old_variables_need_their_switch(dialect: str) -> None:
    environ = {ENVIRONMENT_PREFIX[dialect] + "JOB_QUEUE_SIZE": "2"}
    for switch in ("", "enable_envvars_config=false"):
        assert load_settings(switch, {}, dialect, environ).settings.job_queue_size == 100


def test_allowed_urls_from_the_environment_need_a_second_switch() -> None:
    environ = {"TS_ALLOWED_URLS": "https://a/.*"}
    first = "enable_envvars_config=true\n"
    closed = load_settings(first, {}, "torchserve", environ)
    assert closed.settings.allowed_urls == ("file://.*|http(s)?://.*",)
    assert closed.warnings == ["TS_ALLOWED_URLS has no effect: the file does not say use_env_allowed_urls=true."]
    opened = load_settings(first + "use_env_allowed_urls=true", {}, "torchserve", environ)
    assert opened.settings.allowed_urls == ("https://a/.*",)


@pytest.mark.parametrize("dialect", OLD)
def test_log_location_needs_no_switch(dialect: str) -> None:
    loaded = load_settings("", {}, dialect, {"LOG_LOCATION": "/var/log/x"})
    assert loaded.settings.log_location == Path("/var/log/x")
    assert loaded.warnings == []


#: Settings that are refused without another.
NEVER_ALONE = ("certificate_file", "private_key_file", "keystore_pass", "keystore_type")


def test_every_setting_has_a_native_variable() -> None:
    for key, setting in SETTINGS.items():
        if "native" in setting.dialects and key not in NEVER_ALONE:
            text = setting.defaults["native"]
            loaded = load_settings("", {}, "native", {f"MARSERVE_{key.upper()}": text})
            assert loaded.sources[key] == f"environment variable MARSERVE_{key.upper()}"


def test_the_lifetime_of_keys_has_a_variable_of_its_own_name() -> None:
    environ = {"TS_TOKEN_EXPIRATION_TIME_MIN": "0.5", "TS_TOKEN_EXPIRATION_MIN": "7"}
    loaded = load_settings("enable_envvars_config=true", {}, "torchserve", environ)
    assert loaded.settings.token_expiration_min == 30.0
    assert loaded.sources["token_expiration_min"] == "environment variable TS_TOKEN_EXPIRATION_TIME_MIN"


def test_an_unknown_native_variable_is_an_error() -> None:
    assert refused("", {}, "native", {"MARSERVE_JOB_QUEUE": "3"}) == [
        "environment variable MARSERVE_JOB_QUEUE: unknown setting job_queue. Did you mean job_queue_size?"
    ]


def test_what_kubernetes_says_of_a_service_called_marserve_is_no_setting() -> None:
    environ = {
        "MARSERVE_SERVICE_HOST": "10.0.0.1",
        "MARSERVE_SERVICE_PORT": "8080",
        "MARSERVE_SERVICE_PORT_HTTP": "8080",
        "MARSERVE_PORT": "tcp://10.0.0.1:8080",
        "MARSERVE_PORT_8080_TCP": "tcp://10.0.0.1:8080",
        "MARSERVE_PORT_8080_TCP_ADDR": "10.0.0.1",
        "MARSERVE_GPU_SERVICE_HOST": "10.0.0.2",
        "MARSERVE_GPU_PORT": "udp://10.0.0.2:1",
        "MARSERVE_CONFIG_FILE": "my.properties",
    }
    assert load_settings("", {}, "native", environ).warnings == []
    assert "unknown setting port" in refused("", {}, "native", {"MARSERVE_PORT": "8080"})[0]


# --- settings that contradict each other ---------------------------------------------------------------


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("inference_address=https://127.0.0.1:8443\ncertificate_file=c", "one is missing"),
        ("private_key_file=k", "certificate_file and private_key_file go together"),
        (
            "certificate_file=c\nprivate_key_file=k\ninference_address=https://127.0.0.1:8081",
            "inference_address and management_address are both 127.0.0.1:8081, one of them with TLS.",
        ),
    ],
)
def test_what_no_server_can_run_with_is_an_error_everywhere(dialect: str, text: str, complaint: str) -> None:
    assert complaint in refused(text, {}, dialect)[0]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("certificate_file=c\nprivate_key_file=k", "certificate_file has no effect"),
        ("enable_metrics_api=false\nmetrics_address=http://127.0.0.1:9", "metrics_address has no effect"),
        ("cors_allowed_methods=GET", "cors_allowed_methods has no effect"),
        ("cors_allowed_headers=x-a", "cors_allowed_headers has no effect"),
        ("cpu_launcher_args=--use_logical_core", "cpu_launcher_args has no effect"),
        ("job_timeout=100\ndefault_response_timeout=110", "default_response_timeout (110 s) never passes"),
        ("load_models=a.mar", "load_models names a.mar, and there is no model_store"),
    ],
)
def test_what_has_no_effect_is_an_error_in_ours_and_a_warning_in_the_old_format(text: str, complaint: str) -> None:
    assert complaint in refused(text)[0]
    assert any(complaint in warning for warning in load_settings(text, {}, "torchserve").warnings)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("value", ["https://\u4e2d.example", "https://a\\nX: 1"])
def test_what_no_header_can_carry_is_refused(value: str, dialect: str) -> None:
    complaints = refused(f"cors_allowed_origin={value}", {}, dialect)
    assert len(complaints) == 1
    assert complaints[0].endswith("which no header can carry.")


# --- tokens and certificates ---------------------------------------------------------------------------


def locked(text: str, dialect: str, overrides: dict[str, str] | None = None, **environ: str) -> tuple[bool, bool]:
    """Return whether the inference and the management address ask for keys."""
    settings = load_settings(text, overrides or {}, dialect, environ).settings
    return settings.is_locked(settings.inference_address), settings.is_locked(settings.management_address)


def test_natively_what_other_machines_can_reach_asks_for_keys() -> None:
    assert locked("", "native") == (False, False)
    assert locked("inference_address=http://0.0.0.0:8080", "native") == (True, False)
    assert locked("management_address=http://[::]:8081", "native") == (False, True)
    assert locked("inference_address=unix:/a", "native") == (False, False)
    assert locked("token_authorization=on\ninference_address=unix:/a", "native") == (True, True)
    assert locked("token_authorization=off\ninference_address=http://0.0.0.0:8080", "native") == (False, False)


def test_a_metrics_address_alone_needs_no_key_file() -> None:
    assert not load_settings("metrics_address=http://0.0.0.0:8082").settings.has_keys


def test_torchserve_asks_for_keys_everywhere_and_mms_nowhere() -> None:
    assert locked("", "torchserve") == (True, True)
    assert locked("inference_address=http://0.0.0.0:8080", "mms") == (False, False)


@pytest.mark.parametrize(
    ("in_file", "flag", "variable", "is_locked"),
    [
        ("", "", "", True),
        ("disable_token_authorization=true\n", "", "", False),
        ("", "true", "", False),
        ("", "", "true", False),
        ("disable_token_authorization=false\n", "true", "", False),
        ("disable_token_authorization=true\n", "true", "false", True),
    ],
)
def test_tokens_are_switched_off_by_variable_flag_or_file_in_this_order(
    in_file: str, flag: str, variable: str, is_locked: bool
) -> None:
    flags = {"disable_token_authorization": flag} if flag else {}
    environ = {"TS_DISABLE_TOKEN_AUTHORIZATION": variable} if variable else {}
    assert locked(in_file + "enable_envvars_config=true", "torchserve", flags, **environ)[0] is is_locked


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("token_authorization=on\ndisable_token_authorization=true", "token_authorization has no effect"),
        ("token_authorization=off\ntoken_expiration_min=5", "token_expiration_min has no effect: tokens are off"),
        ("token_authorization=off\nkey_file=k", "key_file has no effect: tokens are off"),
        ("keystore=k", "keystore has no effect: no address begins with https://"),
        ("keystore_pass=secret", "keystore_pass has no effect: keystore is not set"),
        (
            "inference_address=https://127.0.0.1:1\nkeystore=k\ncertificate_file=c\nprivate_key_file=p",
            "certificate_file and private_key_file have no effect: keystore is set",
        ),
    ],
)
def test_what_contradicts_the_tokens_or_the_keystore_is_named(text: str, complaint: str) -> None:
    assert complaint in refused(text)[0]
    assert any(complaint in warning for warning in load_settings(text, {}, "torchserve").warnings)


def test_https_without_a_certificate_is_refused_natively_and_warned_of_elsewhere() -> None:
    text = "inference_address=https://127.0.0.1:8443"
    assert "https://127.0.0.1:8443 needs certificate_file and private_key_file" in refused(text)[0]
    for dialect in ("torchserve", "mms"):
        (warning,) = load_settings(text, {}, dialect).warnings
        assert "self-signed" in warning
    assert load_settings(f"{text}\nkeystore=k").warnings == []


def test_a_keystore_of_another_type_is_refused() -> None:
    assert "none of pkcs12, jks" in refused("inference_address=https://h\nkeystore=k\nkeystore_type=BKS")[0]


def test_values_that_cannot_be_read_are_not_compared() -> None:
    assert refused("model_store=~nobody-of-this-name\nload_models=a.mar") == [
        "config.properties line 1: model_store=~nobody-of-this-name begins with a home folder that is not there; "
        "name the path in full."
    ]


@pytest.mark.parametrize(
    "text",
    [
        "job_timeout=10",
        "model_store=s\nload_models=a.mar",
        "load_models=a=https://host/a.mar",
        "certificate_file=c\nprivate_key_file=k\nmetrics_address=https://127.0.0.1:8445",
        "inference_address=http://127.0.0.1:8080\nmanagement_address=http://127.0.0.1:8080",
        "inference_address=http://127.0.0.1:0\nmanagement_address=http://127.0.0.1:0",
        "cors_allowed_origin=*\ncors_allowed_methods=GET",
    ],
)
def test_settings_that_go_together(text: str) -> None:
    assert load_settings(text).warnings == []


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_management_address_open_to_others_is_warned_of(dialect: str) -> None:
    loaded = load_settings("management_address=http://0.0.0.0:8081", {"token_authorization": "off"}, dialect)
    assert len(loaded.warnings) == 1
    assert loaded.warnings[0].startswith("management_address http://0.0.0.0:8081 can be reached from other machines")


def test_the_folders_of_the_old_servers_logs_come_from_their_variables() -> None:
    variables = {"LOG_LOCATION": "/var/log/x", "METRICS_LOCATION": "/var/log/y"}
    settings = load_settings("", {}, "torchserve", variables).settings
    assert (settings.log_location, settings.metrics_location) == (Path("/var/log/x"), Path("/var/log/y"))
    assert load_settings("", {}, "torchserve", {}).settings.metrics_location == Path("logs")


@pytest.mark.parametrize("key", ["service_envelope", "keystore_type"])
def test_an_empty_word_is_none_in_the_old_formats(key: str) -> None:
    default = getattr(load_settings(dialect="torchserve").settings, key)
    assert getattr(load_settings(f"{key}=", {}, "torchserve", {}).settings, key) == default
    with pytest.raises(ConfigError, match=f"{key}= is none of"):
        load_settings(f"{key}=", {}, "native", {})


def test_a_metrics_mode_that_there_is_not_is_told_and_the_default_counts() -> None:
    loaded = load_settings("metrics_mode=statsd", {}, "torchserve", {})
    assert loaded.settings.metrics_mode == "log"
    (warning,) = loaded.warnings
    assert "metrics_mode=statsd" in warning
    assert warning.endswith("log counts.")


def test_a_lifetime_of_keys_that_is_none_is_told_and_the_default_counts() -> None:
    loaded = load_settings("token_expiration_min=60 # minutes", {}, "torchserve", {})
    assert loaded.settings.token_expiration_min == 3600
    (warning,) = loaded.warnings
    assert "token_expiration_min=60 # minutes" in warning
    with pytest.raises(ConfigError, match="token_expiration_min"):
        load_settings("token_expiration_min=60 # minutes", {}, "native", {})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("disable_system_metrics=true\nmetric_time_interval=5", "metric_time_interval has no effect"),
        ("metrics_mode=prometheus\nenable_metrics_api=false", "nobody sees the metrics"),
        ("metrics_mode=prometheus\nmetrics_location=/x", "metrics_location has no effect"),
    ],
)
def test_settings_of_metrics_without_effect_are_told(text: str, told: str) -> None:
    assert any(told in warning for warning in load_settings(text, {}, "torchserve", {}).warnings)


def test_the_settings_of_torchserves_metrics_are_not_our_own() -> None:
    with pytest.raises(ConfigError, match="metrics_mode"):
        load_settings("metrics_mode=log", {}, "native", {})


@pytest.mark.parametrize("switch", ["", "enable_envvars_config=true\n"])
def test_a_variable_switches_the_open_inference_protocol_on_whatever_the_file_says(
    tmp_path: Path, switch: str
) -> None:
    path = tmp_path / "config.properties"
    path.write_text(f"{switch}ts_open_inference_protocol=false\n")
    environ = {"TS_OPEN_INFERENCE_PROTOCOL": "oip"}

    loaded = load_settings(path, dialect="torchserve", environ=environ)

    assert loaded.settings.ts_open_inference_protocol
    assert loaded.warnings == []


def test_the_variable_of_the_open_inference_protocol_is_read_as_the_others_are(tmp_path: Path) -> None:
    path = tmp_path / "config.properties"
    path.write_text("enable_envvars_config=true\n")

    loaded = load_settings(path, dialect="torchserve", environ={"TS_OPEN_INFERENCE_PROTOCOL": "true"})

    assert loaded.settings.ts_open_inference_protocol


# --- models, snapshots ---------------------------------------------------------------------------------


def test_two_names_for_one_model_are_an_error_natively_and_a_location_for_the_old_server() -> None:
    with pytest.raises(ConfigError, match=r"load_models has a=b=c, with two =\. Write"):
        load_settings("model_store=store\nload_models=a=b=c")
    loaded = load_settings("model_store=store\nload_models=a=b=c", dialect="torchserve")
    assert loaded.settings.load_models == (ModelChoice("a", "b=c"),)
    assert load_settings("load_models=a=http://h/m.mar?b=c").settings.load_models[0].name == "a"


@pytest.mark.parametrize(
    ("models", "told", "loaded"),
    [
        ("a.mar,b=", "load_models has no location after b=.", ("a.mar", "")),
        ("all,a.mar", "load_models names models beside all, which is every archive", ("all", "a.mar")),
    ],
)
def test_what_load_models_cannot_load_is_an_error_natively_and_a_warning_for_the_old_servers(
    models: str, told: str, loaded: tuple[str, ...]
) -> None:
    text = f"model_store=store\nload_models={models}"
    with pytest.raises(ConfigError, match=told):
        load_settings(text)
    for dialect in ("torchserve", "mms"):
        found = load_settings(text, dialect=dialect)
        assert [warning for warning in found.warnings if warning.startswith(told)]
        assert tuple(model.location for model in found.settings.load_models) == loaded


def test_snapshots_need_a_folder() -> None:
    with pytest.raises(ConfigError, match="snapshots has no effect: log_location names no folder"):
        load_settings("snapshots=true")
    assert load_settings("snapshots=true\nlog_location=logs").settings.snapshots
    assert load_settings("", dialect="torchserve").settings.snapshots


def test_what_is_loaded_is_said_once() -> None:
    text = 'model_store=store\nload_models=a.mar\nmodel_snapshot={"models": {}}'
    told = "load_models (--models) has no effect: model_snapshot is set, and stronger."
    assert load_settings(text, dialect="torchserve").warnings == [told]
    with pytest.raises(ConfigError, match="model_snapshot is set, and stronger"):
        load_settings(text)


def test_what_was_written_is_kept_as_it_was_the_strongest_of_each() -> None:
    text = "job_queue_size=1\nNUM_WORKERS=1\nenable_envvars_config=true\nmodel_store=$$STORE$$"
    environ = {"STORE": "here", "TS_JOB_QUEUE_SIZE": "3", "LOG_LOCATION": "elsewhere"}
    written = dict(load_settings(text, {"job_queue_size": "2"}, "torchserve", environ).settings.written)
    assert written == {
        "job_queue_size": "3",
        "NUM_WORKERS": "1",
        "enable_envvars_config": "true",
        "model_store": "here",
    }


def test_what_a_snapshot_notes_of_itself_is_worth_no_word() -> None:
    assert load_settings("version=0.12.0\ntsConfigFile=a\npython=b", dialect="torchserve").warnings == []
    assert refused("version=0.12.0") == [f"config.properties line 1: version has no effect: {INERT['version']}."]


@pytest.mark.parametrize("key", ["models", "model_snapshot", "system_metrics_cmd"])
def test_no_variable_says_what_the_old_server_takes_from_the_file_alone(key: str) -> None:
    loaded = load_settings("enable_envvars_config=true", {}, "torchserve", {f"TS_{key.upper()}": "broken"})
    assert not getattr(loaded.settings, key)


@pytest.mark.parametrize(
    ("variable", "key"),
    [
        ("TS_NUMBER_OF_NETTY_THREADS", "number_of_netty_threads"),
        ("TS_GRPC_INFERENCE_PORT", "grpc_inference_port"),
        ("TS_HEADER_KEY_SEQUENCE_ID", "ts_header_key_sequence_id"),
    ],
)
def test_a_variable_of_a_key_without_effect_is_told(variable: str, key: str) -> None:
    environ = {variable: "1", "TS_VERSION": "7", "TS_VMARGS": "-Xmx1g"}
    assert load_settings("", {}, "torchserve", environ).warnings == []
    assert load_settings("enable_envvars_config=true", {}, "torchserve", environ).warnings == [
        f"environment variable {variable}: {key} has no effect: {INERT[key]}."
    ]
