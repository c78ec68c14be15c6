"""Rows B6 to B8, B10, B11, C1 to C7, C16 and K5: which settings count, and what each form of them does."""

from __future__ import annotations

import io
import json
import os
import tarfile
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from marserve.metrics.definitions import SHIPPED
from rows import House, Product, Running

#: Answers with a variable of its environment.
TELLS = """\
import os
def handle(data, context):
    return [os.environ.get("ROW_NAME", "") for _ in data] if data else None
"""
QUIET = ("--ncs",)


def packed_gz(house: House, name: str, suffix: str) -> None:
    """Write an archive in the format tgz as the archiver does: all below a folder ``NAME``."""
    source = zipfile.ZipFile(house.store / house.archive(name, TELLS, file=f"{name}.zip"))
    with source, tarfile.open(house.store / f"{name}{suffix}", "w:gz") as archive:
        for inside in source.namelist():
            held = source.read(inside)
            entry = tarfile.TarInfo(f"{name}/{inside}")
            entry.size = len(held)
            archive.addfile(entry, io.BytesIO(held))
    (house.store / f"{name}.zip").unlink()


def folder_archive(house: House, name: str) -> None:
    """Write an archive that is a folder ``NAME``."""
    with zipfile.ZipFile(house.store / house.archive(name, TELLS, file=f"{name}.zip")) as source:
        source.extractall(house.store / name)
    (house.store / f"{name}.zip").unlink()


# --- one server with a long file -----------------------------------------------------------------------

#: The keys that the rows below do not set themselves and that need no file, each with a value of its kind.
OTHER_KEYS = {
    "job_queue_size": "50",
    "number_of_gpu": "0",
    "number_of_netty_threads": "2",
    "netty_client_threads": "2",
    "max_request_size": "6553500",
    "max_response_size": "6553500",
    "limit_max_image_pixels": "true",
    "decode_input_request": "true",
    "service_envelope": "body",
    "install_py_dep_per_model": "false",
    "allowed_urls": "file://.*|http(s)?://.*",
    "use_env_allowed_urls": "false",
    "cors_allowed_origin": "https://example.org",
    "cors_allowed_methods": "GET, POST",
    "cors_allowed_headers": "X-Custom",
    "keystore_pass": "changeit",
    "keystore_type": "PKCS12",
    "metrics_mode": "log",
    "model_metrics_auto_detect": "false",
    "enable_metrics_api": "true",
    "metric_time_interval": "60",
    "async_logging": "false",
    "ipex_enable": "false",
    "ipex_gpu_enable": "false",
    "cpu_launcher_enable": "false",
    "cpu_launcher_args": "--use_logical_core",
    "blacklist_env_vars": "SECRET_.*",
    "prefer_direct_buffer": "false",
    "use_native_io": "true",
    "io_ratio": "50",
    "initial_worker_port": "9100",
    "initial_distribution_port": "29600",
    "grpc_inference_address": "127.0.0.1",
    "grpc_management_address": "127.0.0.1",
    "grpc_inference_max_connection_age_ms": "60000",
    "grpc_inference_max_connection_age_grace_ms": "1000",
    "grpc_management_max_connection_age_ms": "60000",
    "grpc_management_max_connection_age_grace_ms": "1000",
    "enable_grpc_ssl": "false",
    "token_expiration_min": "60",
    "unregister_model_timeout": "120",
    "ts_open_inference_protocol": "false",
    "ts_header_key_sequence_id": "ts_request_sequence_id",
    "ts_header_key_sequence_start": "ts_request_sequence_start",
    "ts_header_key_sequence_end": "ts_request_sequence_end",
    "vmargs": "-Xmx512m",
    "debug": "false",
    "enable_envvars_config": "false",
    "version": "0.12.0",
    "NUM_WORKERS": "1",
}
GRAMMAR = r"""
# a comment goes on over no line end \
! this one neither \
default_response_timeout: 33
  default_startup_timeout 44
enable_model_\u0061pi = tr\
    ue
disable_token_authorization=\
true
default_service_handler=service.py\:handle
models={\
  "tuned": {"1.0": {"defaultVersion": true, "marName": "tuned.mar", "minWorkers": 2, "maxWorkers": 3, \
    "batchSize": 8, "maxBatchDelay": 50, "responseTimeout": 60, "startupTimeout": 70, "parallelLevel": 1}, \
    "2.0": {"batchSize": 0, "maxBatchDelay": -1, "responseTimeout": 0}}, \
  "later": {"1.0": {"minWorkers": 1, "maxWorkers": 1, "batchSize": 6, "maxBatchDelay": 40, \
    "responseTimeout": 61, "startupTimeout": 71}}}
load_models=$$ROW_MODELS$$
"""


@pytest.fixture(scope="module")
def served(shared_house: House) -> Running:
    house = shared_house
    house.archive("plain", TELLS)
    house.archive("tuned", TELLS)
    house.archive("tuned", TELLS, version="2.0", file="tuned2.mar")
    house.archive("own", TELLS, config="batchSize: 3\nminWorkers: 1\nmaxWorkers: 1\n")
    house.archive("bare", TELLS, handler="")
    packed_gz(house, "other", ".model")
    packed_gz(house, "squeezed", ".tar.gz")
    folder_archive(house, "folder")
    (house.store / "bad.tar.gz").write_text("no archive")
    (house.store / "notes.txt").write_text("no archive either")
    settings = dict(OTHER_KEYS)
    settings["metrics_config"] = str(SHIPPED["torchserve"])
    text = GRAMMAR.strip().partition("\n")
    settings[text[0]] = f"\n{text[2]}\n"  # the harness puts = between, which is part of the comment
    environment = {"ROW_MODELS": "all", "TS_DEFAULT_RESPONSE_TIMEOUT": "5", "ROW_NAME": "here"}
    return house.start(settings=settings, flags=QUIET, environment=environment)


def described(server: Running, model: str, *keys: str) -> list[object]:
    entry = server.describe(model)
    return [entry[key] for key in keys]


@pytest.mark.row("C1")
def test_the_grammar_is_that_of_java(served: Running) -> None:
    assert described(served, "plain", "responseTimeout", "startupTimeout") == [33, 44]
    assert served.ask("/predictions/plain", b"x").text == "here"


@pytest.mark.row("C2")
def test_every_key_is_taken_and_an_unknown_one_stops_nothing(served: Running) -> None:
    assert served.ask("/ping").json() == {"status": "Healthy"}


@pytest.mark.row("C4")
def test_a_variable_between_dollars_is_its_value(served: Running) -> None:
    assert "plain" in served.manage("GET", "/models").text


@pytest.mark.row("C6")
def test_all_loads_every_form_and_a_bad_one_stops_no_other(served: Running, product: Product) -> None:
    names = {model["modelName"] for model in served.manage("GET", "/models").json()["models"]}
    assert names == {"plain", "tuned", "own", "bare", "other", "squeezed", "folder"}
    for name in ("other", "squeezed", "folder"):
        assert served.ask(f"/predictions/{name}", b"x").status == 200
    told = "Failed to load model: " if product.is_genuine else "bad.tar.gz could not be loaded: "
    assert told in served.log


@pytest.mark.row("C5")
def test_the_parameters_of_a_version_count_at_start(served: Running) -> None:
    keys = ("minWorkers", "maxWorkers", "batchSize", "maxBatchDelay", "responseTimeout", "startupTimeout")
    first = served.manage("GET", "/models/tuned/1.0").json()[0]
    second = served.manage("GET", "/models/tuned/2.0").json()[0]
    assert [first[key] for key in keys] == [2, 3, 8, 50, 60, 70]
    assert [second[key] for key in keys] == [1, 1, 1, 100, 33, 44]


@pytest.mark.row("C5")
def test_and_for_a_model_that_is_registered_later(served: Running) -> None:
    served.house.archive("later", TELLS)
    assert served.manage("POST", "/models?url=later.mar&initial_workers=0").status == 200
    keys = ("batchSize", "maxBatchDelay", "responseTimeout", "startupTimeout")
    assert described(served, "later", "minWorkers", "maxWorkers", *keys) == [0, 0, 6, 40, 61, 71]
    served.manage("DELETE", "/models/later")
    target = "/models?url=later.mar&initial_workers=0&batch_size=2&max_batch_delay=9"
    target += "&response_timeout=7&startup_timeout=8"
    assert served.manage("POST", target).status == 200
    assert described(served, "later", *keys) == [2, 9, 61, 71]
    served.manage("DELETE", "/models/later")


@pytest.mark.row("C5")
def test_the_archive_is_stronger(served: Running) -> None:
    assert described(served, "own", "batchSize", "minWorkers") == [3, 1]


@pytest.mark.row("C16")
def test_the_default_time_outs_count_where_nothing_else_does(served: Running) -> None:
    served.house.archive("timed", TELLS)
    assert served.manage("POST", "/models?url=timed.mar&initial_workers=0").status == 200
    assert described(served, "timed", "responseTimeout", "startupTimeout") == [33, 44]
    served.manage("DELETE", "/models/timed")
    target = "/models?url=timed.mar&initial_workers=0&response_timeout=7&startup_timeout=8"
    assert served.manage("POST", target).status == 200
    assert described(served, "timed", "responseTimeout", "startupTimeout") == [7, 8]
    served.manage("DELETE", "/models/timed")


@pytest.mark.row("C3")
def test_a_variable_does_not_count_before_the_file_says_so(served: Running) -> None:
    assert described(served, "plain", "responseTimeout") == [33]


@pytest.mark.row("K5")
def test_the_file_switches_tokens_off(served: Running) -> None:
    assert served.ask("/predictions/plain", b"x").status == 200


@pytest.mark.row("B10")
def test_the_file_switches_the_model_api_on(served: Running) -> None:
    assert served.manage("DELETE", "/models/nobody").status == 404


@pytest.mark.row("B9")
def test_with_ncs_no_snapshot_is_written(served: Running) -> None:
    assert not (served.house.folder / "logs" / "config").exists()


@pytest.mark.row("C2")
def test_a_handler_of_the_settings_serves_an_archive_without(served: Running) -> None:
    assert served.ask("/predictions/bare", b"x").text == "here"


# --- variables, and the default number of workers ------------------------------------------------------


@pytest.fixture(scope="module")
def overridden(product: Product, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    house = House(product, tmp_path_factory.mktemp("overridden"))
    house.archive("first", TELLS)
    house.archive("second", TELLS)
    settings = {
        "enable_envvars_config": "true",
        "disable_token_authorization": "false",
        "default_workers_per_model": "1",
        "number_of_gpu": "0",
        "default_response_timeout": "33",
    }
    environment = {
        "TS_LOAD_MODELS": "second.mar",
        "TS_DISABLE_TOKEN_AUTHORIZATION": "true",
        "TS_ENABLE_MODEL_API": "true",
        "TS_DEFAULT_WORKERS_PER_MODEL": "0",
        "TS_DEFAULT_RESPONSE_TIMEOUT": "44",
        "TS_ALLOWED_URLS": "nothing",
    }
    yield house.start("first.mar", settings=settings, flags=QUIET, environment=environment)
    house.close()


@pytest.mark.row("C3")
def test_a_variable_beats_the_command_line_and_the_file(overridden: Running) -> None:
    models = overridden.manage("GET", "/models").json()["models"]
    assert [model["modelName"] for model in models] == ["second"]
    assert described(overridden, "second", "responseTimeout") == [44]


@pytest.mark.row("C3")
def test_allowed_urls_need_a_word_of_their_own(overridden: Running) -> None:
    url = (overridden.house.store / "first.mar").as_uri()
    answer = overridden.manage("POST", f"/models?url={url}&model_name=copied&initial_workers=0")
    assert "does not match any allowed URL(s)" not in answer.text


@pytest.mark.row("K5")
def test_a_variable_switches_tokens_off_against_the_file(overridden: Running) -> None:
    assert overridden.ask("/ping").status == 200


@pytest.mark.row("C7")
def test_no_default_number_is_one_worker_a_cpu_at_start(overridden: Running) -> None:
    assert described(overridden, "second", "minWorkers", "maxWorkers") == [os.cpu_count(), os.cpu_count()]


@pytest.mark.row("C7")
def test_and_none_for_what_is_registered_later(overridden: Running) -> None:
    answer = overridden.manage("POST", "/models?url=first.mar")
    assert answer.json()["status"] == (
        'Model "first" Version: 1.0 registered with 0 initial workers. '
        "Use scale workers API to add workers for the model."
    )
    assert described(overridden, "first", "minWorkers", "workers") == [0, []]


# --- flags ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def flagged(product: Product, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    house = House(product, tmp_path_factory.mktemp("flagged"))
    house.archive("plain", TELLS)
    house.archive("far", TELLS)
    (house.store / "far.mar").rename(house.folder / "far.mar")
    folder_archive(house, "folder")
    log = house.folder / "log4j2.xml"
    log.write_text(
        "<Configuration><Appenders><Console name='c' target='SYSTEM_OUT'/></Appenders>"
        "<Loggers><Root level='error'><AppenderRef ref='c'/></Root></Loggers></Configuration>"
    )
    inert = ("--log-config", str(log), "--cpp-log-config", str(log), "--ppath", str(house.folder))
    far = f"far={(house.folder / 'far.mar').as_uri()}"
    settings = {"vmargs": "-Xmx512m"}
    flags = ("--no-config-snapshots", "--dt", *inert)
    yield house.start("plain.mar,named=plain.mar", "folder", far, settings=settings, flags=flags)
    house.close()


@pytest.mark.row("B8")
def test_models_are_files_names_folders_and_urls(flagged: Running) -> None:
    models = flagged.manage("GET", "/models").json()["models"]
    assert [model["modelName"] for model in models] == ["far", "folder", "named", "plain"]


@pytest.mark.row("B10")
def test_dt_switches_tokens_off_and_the_model_api_stays_off(flagged: Running) -> None:
    assert flagged.ask("/ping").status == 200
    assert flagged.manage("DELETE", "/models/plain").status == 405
    assert not (flagged.house.folder / "key_file.json").exists()


@pytest.mark.row("K5")
def test_a_flag_switches_tokens_off(flagged: Running) -> None:
    assert flagged.ask("/predictions/plain", b"x").status == 200


@pytest.mark.row("B11")
def test_flags_that_need_a_jvm_stop_no_start_and_are_told(flagged: Running, product: Product) -> None:
    assert flagged.process.poll() is None
    if product.is_genuine:
        assert "Warning: TorchServe is using non-default JVM parameters: -Xmx512m" in flagged.log
        return
    for name in ("--cpp-log-config", "--plugins-path", "vmargs"):
        assert f"{name} has no effect" in flagged.log


@pytest.mark.row("B11")
def test_the_level_of_a_file_of_log4j_counts(flagged: Running) -> None:
    assert "INFO" not in flagged.log


@pytest.mark.row("B10")
@pytest.mark.row("C3")
@pytest.mark.row("K5")
def test_without_a_switch_keys_are_asked_for_and_a_variable_says_how_long_they_are_good(house: House) -> None:
    settings = {"enable_envvars_config": "true", "token_expiration_min": "60"}
    environment = {"TS_TOKEN_EXPIRATION_TIME_MIN": "600", "TS_TOKEN_EXPIRATION_MIN": "6000"}
    flags = ("--ncs", "--enable-model-api")
    server = house.start(settings=settings, flags=flags, environment=environment)
    refused = server.ask("/ping")
    assert (refused.status, refused.json()["type"]) == (400, "InvalidKeyException")
    key = json.loads((house.folder / "key_file.json").read_text())["management"]
    left = datetime.fromisoformat(key["expiration time"]) - datetime.now(UTC)
    assert 9 < left.total_seconds() / 3600 <= 10
    headers = {"Authorization": f"Bearer {key['key']}"}
    assert server.manage("DELETE", "/models/nobody", headers=headers).status == 404


# --- starts that fail at once --------------------------------------------------------------------------


@pytest.mark.row("B6")
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "Missing mandatory parameter --model-store\n"),
        (["--model-store", "nowhere"], "--model-store directory not found: nowhere\n"),
        (["--ts-config", "nowhere"], "--ts-config file not found: nowhere\n"),
        (["--ts-config", "elsewhere.properties"], "--model-store directory not found: elsewhere\n"),
        (["--model-store", "store", "--workflow-store", "no"], "--workflow-store directory not found: no\n"),
    ],
)
def test_a_start_without_a_store_fails(product: Product, house: House, arguments: list[str], text: str) -> None:
    (house.folder / "config.properties").write_text("model_store=store\n")
    (house.folder / "elsewhere.properties").write_text("model_store=elsewhere\n")
    told = product.run(house.folder, "torchserve", "--start", *arguments)
    assert (told.returncode, told.stdout) == (1, text)


@pytest.mark.row("B7")
def test_a_variable_names_a_file_that_must_be_there(product: Product, house: House) -> None:
    environment = {"TS_CONFIG_FILE": "nowhere"}
    arguments = ["--start", "--model-store", "store", "--ts-config", "there.properties"]
    (house.folder / "there.properties").touch()
    told = product.run(house.folder, "torchserve", *arguments, environment=environment)
    assert (told.returncode, told.stdout) == (1, "--ts-config file not found: nowhere\n")


@pytest.mark.row("B7")
@pytest.mark.row("C4")
@pytest.mark.parametrize(
    ("which", "flags", "environment"),
    [
        ("VARIABLE", ["--ts-config", "flag.properties"], {"TS_CONFIG_FILE": "variable.properties"}),
        ("FLAG", ["--ts-config", "flag.properties"], {}),
        ("SNAPSHOT", [], {}),
        ("ELSEWHERE", [], {"LOG_LOCATION": "elsewhere"}),
        ("PLAIN", ["--ncs"], {}),
    ],
)
def test_which_file_is_read(
    product: Product, house: House, which: str, flags: list[str], environment: dict[str, str]
) -> None:
    places = {
        "variable.properties": "VARIABLE",
        "flag.properties": "FLAG",
        "logs/config/20260131120000000-shutdown.cfg": "SNAPSHOT",
        "logs/config/20260131110000000-startup.cfg": "OLDER",
        "elsewhere/config/20250131120000000-snapshot.cfg": "ELSEWHERE",
        "config.properties": "PLAIN",
    }
    for place, name in places.items():
        path = house.folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        # Nothing starts without the variable, so the file that is read names itself.
        path.write_text(f"model_store=store\ndefault_response_timeout=$$ROW_{name}$$\n")
    arguments = ["--start", "--foreground", *flags]
    if "properties" not in str(flags):
        arguments += ["--model-store", "store"]
    told = product.run(house.folder, "torchserve", *arguments, environment=environment)
    assert f"Invalid Environment Variable ROW_{which}" in told.stdout
    assert told.returncode == (0 if product.is_genuine else 1)


@pytest.mark.row("C5")
@pytest.mark.parametrize(
    "models", ['{"m": ', "[1]", '{"m": 7}', '{"plain": {"1.0": {"minWorkers": "few"}}}'], ids=str
)
def test_broken_parameters_stop_the_start(product: Product, house: House, models: str) -> None:
    house.archive("plain", TELLS)
    config = house.folder / "broken.properties"
    _, settings = house.settings({"models": models})
    config.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
    arguments = ["--start", "--foreground", "--ncs", "--model-store", "store", "--models", "plain.mar"]
    told = product.run(house.folder, "torchserve", *arguments, "--ts-config", config.name)
    assert "Model server started." not in told.stdout
    if not product.is_genuine:
        assert told.returncode == 1
        assert "broken.properties line 8: models=" in told.stdout
