"""Every setting of the server, one row each: the docs page, ``marserve settings`` and the checks come from here.

A row is a field of ``Settings``: its name is the key in ``config.properties``, and ``row`` holds the rest. The
keys of the two old servers keep their names. Values inside have no unit but float seconds and whole bytes.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import cast

from marserve.config.address import Address
from marserve.config.kinds import (
    FLAG,
    MODELS,
    NATIVE,
    PATH,
    PATTERN,
    PATTERNS,
    REQUIRED_PATH,
    SECRET,
    TEXT,
    ModelChoice,
    choice,
    count,
    listen,
    size,
    span,
)
from marserve.config.setting import Setting, row
from marserve.config.versions import PARAMETERS, SNAPSHOT, VersionEntry

_TS = ("torchserve",)
_BOTH = ("torchserve", "mms")
_NOT_MMS = ("native", "torchserve")


@dataclass(frozen=True, slots=True)
class Settings:
    """What the server is told, checked and complete. ``Settings()`` is the native defaults."""

    dialect: str = "native"
    #: What somebody wrote, key and text, in the dialect's notation: a snapshot says it again.
    written: tuple[tuple[str, str], ...] = field(default=(), compare=False)

    inference_address: Address = row(
        "Addresses",
        listen(80, 443),
        "http://127.0.0.1:8080",
        "Where predictions are asked for: `http://host:port`, `https://host:port` or `unix:/path`. "
        "Equal addresses share one port.",
        known_to=_BOTH,
    )
    management_address: Address = row(
        "Addresses",
        listen(8081, 8444),
        "http://127.0.0.1:8081",
        "Where models are registered, scaled and described. Who reaches it can run code on this machine.",
        known_to=_BOTH,
    )
    metrics_address: Address = row(
        "Addresses",
        listen(8082, 8445),
        "http://127.0.0.1:8082",
        "Where Prometheus reads the metrics.",
        known_to=_TS,
    )
    enable_metrics_api: bool = row(
        "Addresses",
        FLAG,
        "true",
        "Whether there is a metrics address. MMS had none, so its port is not taken unless asked for.",
        mms="false",
        known_to=_TS,
    )
    certificate_file: Path | None = row(
        "Addresses", PATH, "", "Certificate chain for https, PEM. Needs `private_key_file`.", known_to=_BOTH
    )
    private_key_file: Path | None = row(
        "Addresses", PATH, "", "Key of the certificate, PEM, without a passphrase.", known_to=_BOTH
    )
    keystore: Path | None = row(
        "Addresses",
        PATH,
        "",
        "Certificate chain and key for https in one PKCS12 file, instead of the two PEM files. Without any of them "
        "`torchserve` and `multi-model-server` make a self-signed certificate at each start; `marserve` refuses.",
        known_to=_BOTH,
    )
    keystore_pass: str = row("Addresses", SECRET, "changeit", "Password of the keystore.", known_to=_BOTH)
    keystore_type: str = row(
        "Addresses",
        choice("pkcs12", "jks"),
        "PKCS12",
        "Type of the keystore. Under either name it must be PKCS12, as Java has made them since version 9.",
        known_to=_BOTH,
    )

    sagemaker_endpoints: bool = row(
        "Addresses",
        FLAG,
        "false",
        "Whether `/ping` answers in SageMaker's form, 503 until a model can be asked, and `/execution-parameters` is "
        "there: what Multi Model Server's plugin for SageMaker did. `--mms-config sagemaker` switches it on.",
        dialects=("mms",),
    )

    enable_model_api: bool = row(
        "Access",
        FLAG,
        "true",
        "Whether models may be registered and unregistered while the server runs; otherwise 405.",
        torchserve="false",
        known_to=_TS,
    )
    token_authorization: str = row(
        "Access",
        choice("auto", "on", "off"),
        "auto",
        "Whether requests must carry a key: `on`, `off`, or `auto`, at those addresses alone that other machines can "
        "reach.",
        torchserve="on",
        mms="off",
    )
    disable_token_authorization: bool = row(
        "Access",
        FLAG,
        "false",
        "`true` asks nobody for a key, whatever `token_authorization` says.",
        known_to=_TS,
    )
    token_expiration_min: float = row(
        "Access",
        span(0.001),
        "60",
        "How long an inference or a management key is good for. TorchServe's variable is "
        "`TS_TOKEN_EXPIRATION_TIME_MIN`.",
        unit="min",
        known_to=_TS,
    )
    key_file: Path = row(
        "Access",
        REQUIRED_PATH,
        "key_file.json",
        "File that the keys are written to, and removed with when the server ends; its owner alone can read it.",
    )
    allowed_urls: tuple[str, ...] = row(
        "Access",
        PATTERNS,
        "",
        "Regular expressions with commas between; a URL to register from must match one in full, letter case "
        "aside. Empty: archives come from the model store alone.",
        torchserve="file://.*|http(s)?://.*",
        mms="http(s)?://.*",
        known_to=_TS,
    )
    allowed_input_urls: tuple[str, ...] = row(
        "Access",
        PATTERNS,
        "",
        "Regular expressions with commas between; an http(s) address that a request names for its input must match "
        "one in full, letter case aside. Empty: only `data:` URIs are read. See [addresses in requests]"
        "(security.md#addresses-in-requests).",
    )
    cors_allowed_origin: str = row(
        "Access", TEXT, "", "Origin whose pages may call the server, `*` for all. Empty: none.", known_to=_BOTH
    )
    cors_allowed_methods: str = row(
        "Access", TEXT, "", "Methods that such pages may use, with commas between.", known_to=_BOTH
    )
    cors_allowed_headers: str = row(
        "Access", TEXT, "", "Headers that such pages may send, with commas between.", known_to=_BOTH
    )

    model_store: Path | None = row(
        "Models", PATH, "", "Folder of the archives. Without one, none can be loaded by name.", known_to=_BOTH
    )
    load_models: tuple[ModelChoice, ...] = row(
        "Models",
        MODELS,
        "",
        "What to load at start: `[name=]location` with commas between, or `all`. A location is a file or folder "
        "of the store, or a URL; names may hold blanks.",
        known_to=_BOTH,
    )
    models: tuple[VersionEntry, ...] = row(
        "Models",
        PARAMETERS,
        "",
        'How model versions are served: `{"m": {"1.0": {"minWorkers": 1, "maxWorkers": 1, "batchSize": 8, '
        '"maxBatchDelay": 50, "responseTimeout": 120, "startupTimeout": 120, "runtimeType": "python"}}}`, the delay '
        "in milliseconds, the timeouts in seconds. It names parameters and loads nothing, and is weaker than the "
        "archive's `model-config.yaml`. 0 and less stand for the default.",
        known_to=_TS,
        dialects=_NOT_MMS,
    )
    model_snapshot: tuple[VersionEntry, ...] | None = row(
        "Models",
        SNAPSHOT,
        "",
        "What to load at start and how, instead of `load_models`: the JSON of a "
        "[snapshot](api-management.md#snapshots). `{}` loads nothing.",
        known_to=_TS,
        dialects=_NOT_MMS,
    )
    snapshots: bool = row(
        "Models",
        FLAG,
        "false",
        "Whether what is served is written down, at start, after each change and at the end, in the folder `config` "
        "of `log_location`: see [snapshots](api-management.md#snapshots). `torchserve --ncs` switches it off.",
        torchserve="true",
        dialects=_NOT_MMS,
    )
    default_service_handler: str = row(
        "Models", TEXT, "", "Entry point of archives whose manifest names none.", known_to=_BOTH
    )
    install_py_dep_per_model: bool = row(
        "Models",
        FLAG,
        "false",
        "Whether what an archive's requirements file asks for is installed for its workers, on top of what the "
        "server has. Done once for the same file, and kept below `cache_folder`. Needs uv, as `useVenv` of a "
        "model-config does.",
        known_to=_TS,
    )
    install_python: bool = row(
        "Models",
        FLAG,
        "false",
        "Whether uv may download an interpreter that a model-config names by `python` and the machine does not "
        "have. Without it such an archive is refused, with a list of those that there are.",
    )
    cache_folder: Path = row(
        "Models",
        REQUIRED_PATH,
        "~/.cache/marserve",
        "Folder for unpacked archives and their environments, kept between runs. Where it cannot be written, a "
        "temporary one that ends with the server. `torchserve` and `multi-model-server` keep environments alone in "
        "it: they unpack each model into a temporary folder of its own, as they always did.",
    )

    default_workers_per_model: int = row(
        "Workers",
        count(),
        "1",
        "Worker processes of a model that nobody gave a number. Native: 0 is none until it is scaled. "
        "TorchServe and MMS: 0 is one per GPU, else per CPU, for models loaded at start, and none for models "
        "registered later.",
        torchserve="0",
        mms="0",
        known_to=_BOTH,
    )
    number_of_gpu: int = row(
        "Workers",
        count(-1),
        "-1",
        "How many of the GPUs workers are given in turn, from the first on; -1 is all that there are.",
        known_to=_BOTH,
    )
    initial_worker_port: int = row(
        "Workers",
        count(),
        "9000",
        "Number of the first worker; the others count on from there. In the old servers it was a port; nothing "
        "listens there.",
        known_to=_TS,
    )
    worker_threads: int = row(
        "Workers", count(), "0", "Threads that each worker's libraries compute with; 0 shares the CPUs out."
    )
    worker_start: str = row(
        "Workers",
        choice("fork", "spawn"),
        "fork",
        "How worker processes begin. `fork`: the model is loaded once, and its workers are forked from that process; "
        "they share its memory and start in milliseconds. A model that is not fit for it is found out and spawned, "
        "with a line in the log: [one copy of the weights](service.md#one-copy-of-the-weights). `spawn`: each worker "
        "loads for itself. `workerStart` of a `model-config.yaml` is stronger.",
        torchserve="spawn",
        mms="spawn",
    )
    debug: bool = row(
        "Workers",
        FLAG,
        "false",
        "Workers are not started: the log says with which command to start each, in a terminal or a debugger of your "
        "own. One a model where no number is asked for, and nothing is ended for taking its time: "
        "[in a debugger](service.md#in-a-debugger).",
        known_to=_BOTH,
    )
    preload_model: bool = row(
        "Workers",
        FLAG,
        "false",
        "Multi Model Server's name for `worker_start=fork`: a model is loaded once, and its workers share that. Its "
        "workers keep their batch size and GPU.",
        known_to=("mms",),
        dialects=("mms",),
    )
    blacklist_env_vars: str = row(
        "Workers",
        PATTERN,
        "",
        "Regular expression; environment variables whose name it matches in full are hidden from workers.",
        known_to=_BOTH,
    )
    arena_size: int = row(
        "Workers",
        size(0),
        "64MiB",
        "Shared memory of each worker for large bodies; what does not fit travels through its socket, slower.",
        unit="B",
    )

    initial_distribution_port: int = row(
        "Workers",
        count(1),
        "29500",
        "Number of the first worker of a model with a `parallelType`. With `rdzv-backend: static` it is also the "
        "port at which its processes meet; otherwise the system chooses one.",
        known_to=_TS,
        dialects=_NOT_MMS,
    )
    ipex_enable: bool = row(
        "Workers",
        FLAG,
        "false",
        "Whether `BaseHandler` optimises models with intel-extension-for-pytorch, where that is installed.",
        known_to=_TS,
        dialects=_NOT_MMS,
    )
    ipex_gpu_enable: bool = row(
        "Workers",
        FLAG,
        "false",
        "Whether `BaseHandler` uses an Intel GPU.",
        known_to=_TS,
        dialects=_NOT_MMS,
    )
    cpu_launcher_enable: bool = row(
        "Workers",
        FLAG,
        "false",
        "Whether workers are pinned to cores by `python -m torch.backends.xeon.run_cpu`. A worker that cannot be "
        "says so and runs without; one of several processes never is.",
        known_to=_TS,
        dialects=_NOT_MMS,
    )
    cpu_launcher_args: str = row(
        "Workers", TEXT, "", "Arguments for that, with blanks between.", known_to=_TS, dialects=_NOT_MMS
    )

    batch_size: int = row("Batches", count(1), "1", "Most requests that travel to a worker together.")
    max_batch_delay: float = row(
        "Batches",
        span(),
        "0",
        "How long an incomplete batch waits after its oldest request arrived; 0 sends what is there.",
        unit="ms",
        torchserve="100",
        mms="100",
    )
    job_queue_size: int = row(
        "Batches",
        count(1),
        "100",
        "Most waiting requests of a model version; one more is answered with 503.",
        known_to=_BOTH,
    )

    job_timeout: float = row(
        "Timeouts",
        span(),
        "120",
        "Longest time from a request's arrival to its answer; 0 sets no limit, as the old servers had none.",
        unit="s",
        torchserve="0",
        mms="0",
    )
    default_response_timeout: float = row(
        "Timeouts",
        span(0.001),
        "120",
        "Longest time that a worker may spend on a batch before it is replaced. MMS reads minutes.",
        unit="s",
        mms_unit="min",
        known_to=_BOTH,
    )
    default_response_timeout_seconds: float = row(
        "Timeouts",
        span(-1.0),
        "-1",
        "The same in seconds, and the stronger of the two; -1 is unset.",
        unit="s",
        known_to=("mms",),
        dialects=("mms",),
    )
    default_startup_timeout: float = row(
        "Timeouts",
        span(0.001),
        "120",
        "Longest time that a worker may take to load its model.",
        unit="s",
        known_to=_TS,
    )
    prefer_timeout_parameters: bool = row(
        "Timeouts",
        FLAG,
        "false",
        "`true` makes `response_timeout` and `startup_timeout` of a registration stronger than `responseTimeout` and "
        "`startupTimeout` of the archive's `model-config.yaml`, as TorchServe's documentation has it; `false` makes "
        "them weaker, as TorchServe itself does.",
        dialects=_TS,
    )
    unregister_model_timeout: float = row(
        "Timeouts",
        span(0.001),
        "120",
        "Longest time that unregistering waits for a model's workers to end.",
        unit="s",
        known_to=_BOTH,
    )
    drain_timeout: float = row(
        "Timeouts",
        span(),
        "120",
        "Longest time between the signal to stop and the end; what is unanswered then gets 503.",
        unit="s",
    )
    header_timeout: float = row(
        "Timeouts",
        span(0.001),
        "20",
        "Longest time from the first byte of a request to the end of its headers.",
        unit="s",
    )
    body_timeout: float = row(
        "Timeouts", span(0.001), "60", "Longest silence in the middle of a request's body.", unit="s"
    )
    keep_alive_timeout: float = row(
        "Timeouts", span(0.001), "75", "How long a connection may stay open between requests.", unit="s"
    )
    write_timeout: float = row(
        "Timeouts",
        span(0.001),
        "60",
        "How long a client may take nothing of its answer before it is cut off.",
        unit="s",
    )

    max_request_size: int = row(
        "Limits",
        size(),
        "64MiB",
        "Largest body of a request; more is answered with 413.",
        unit="B",
        torchserve="6553500",
        mms="6553500",
        known_to=_BOTH,
    )
    max_response_size: int = row(
        "Limits",
        size(),
        "64MiB",
        "Largest answer of a worker.",
        unit="B",
        torchserve="6553500",
        mms="6553500",
        known_to=_BOTH,
    )
    max_header_size: int = row(
        "Limits",
        # A header's length has two bytes on the wire to the workers.
        size(1024, 65535),
        "32KiB",
        "Most bytes of a request's first line and headers together; at most 65535.",
        unit="B",
    )

    service_envelope: str = row(
        "Input",
        choice("none", "body", "json", "kserve", "kservev2"),
        "none",
        "Wrapping that is taken off every body and put on every answer, for all models; `none` leaves it to the "
        "archive's manifest.",
        known_to=_TS,
    )
    ts_open_inference_protocol: bool = row(
        "Input",
        FLAG,
        "false",
        "Whether `/v2`, `/v2/health/live` and `/v2/health/ready` answer. The environment variable "
        "`TS_OPEN_INFERENCE_PROTOCOL=oip` switches it on whatever the file says.",
        known_to=_TS,
        dialects=_TS,
    )
    limit_max_image_pixels: bool = row(
        "Input",
        FLAG,
        "true",
        "Whether the built-in handlers of images refuse one so large that it may be meant to fill the memory: "
        "Pillow's limit. A service finds it in `context.system_properties`.",
        known_to=_TS,
    )
    decode_input_request: bool = row(
        "Input",
        FLAG,
        "true",
        "Whether JSON bodies are parsed and text is decoded before the service sees them.",
        known_to=_BOTH,
    )

    log_level: str = row(
        "Logs", choice("debug", "info", "warning", "error"), "info", "What is worth a line in the log."
    )
    log_format: str = row("Logs", choice("text", "json"), "text", "Lines for people or for machines.")
    log_location: Path | None = row(
        "Logs",
        PATH,
        "",
        "Folder of the log's files: `marserve.log` (native), `access_log.log`, `model_log.log` and `ts_log.log` "
        "(torchserve) or `mms_log.log` (mms), beside standard error or, in the old dialects, standard output. Empty: "
        "no files. The old servers' `LOG_LOCATION` is read too.",
        torchserve="logs",
        mms="logs",
    )
    metrics_location: Path | None = row(
        "Logs",
        PATH,
        "",
        "Folder of `model_metrics.log` and of `ts_metrics.log` or `mms_metrics.log`. Empty: no such files. The old "
        "servers' `METRICS_LOCATION` is read too.",
        torchserve="logs",
        mms="logs",
        dialects=_BOTH,
    )

    access_log: bool = row(
        "Logs",
        FLAG,
        "false",
        "Whether each request gets a line in the log, under the name `marserve.access`.",
        torchserve="true",
        mms="true",
    )

    server_timing: str = row(
        "Metrics",
        choice("off", "asked", "always"),
        "asked",
        "Whether the answer to a prediction says in `Server-Timing` where its time went, in milliseconds: never, "
        "when the request has a header of that name, or always.",
    )
    metrics_mode: str = row(
        "Metrics",
        choice("log", "prometheus", "legacy"),
        "log",
        "Where metrics go: `log` into the log and its files, `prometheus` to the metrics address, `legacy` the three "
        "`ts_` counters to the metrics address and the rest into the log.",
        known_to=_TS,
        dialects=_TS,
    )
    metrics_config: Path | None = row(
        "Metrics",
        PATH,
        "",
        "File that defines the metrics, in the form of TorchServe's `metrics.yaml`. Empty: TorchServe's default set.",
        known_to=_TS,
        dialects=_TS,
    )
    model_metrics_auto_detect: bool = row(
        "Metrics",
        FLAG,
        "false",
        "Whether metrics of services are kept that `metrics_config` does not define.",
        known_to=_TS,
        dialects=_TS,
    )
    disable_system_metrics: bool = row(
        "Metrics", FLAG, "false", "`true` leaves out the metrics of the host.", known_to=_TS, dialects=_TS
    )
    system_metrics_cmd: str = row(
        "Metrics",
        TEXT,
        "",
        "Command that tells the metrics of the host: words for Python, a script with its whole path or `-m` and a "
        "module; see [metrics](metrics.md#the-metrics-of-torchserve). Empty: the server reads them itself.",
        known_to=_TS,
        dialects=_TS,
    )
    metric_time_interval: float = row(
        "Metrics",
        span(0.001),
        "60",
        "Time between two looks at the host for its metrics.",
        unit="s",
        known_to=_BOTH,
        dialects=_BOTH,
    )

    def listeners(self) -> list[tuple[Address, tuple[str, ...]]]:
        """Return each address to open with the doors behind it, of inference, management and metrics, in order.

        Equal addresses are one listener with several doors, unless their port is 0.
        """
        wanted = [("inference", self.inference_address), ("management", self.management_address)]
        if self.enable_metrics_api:
            wanted.append(("metrics", self.metrics_address))
        found: list[tuple[Address, tuple[str, ...]]] = []
        for door, address in wanted:
            shared = next((i for i, (other, _) in enumerate(found) if _same_place(other, address)), None)
            if shared is None:
                found.append((address, (door,)))
            else:
                found[shared] = (address, (*found[shared][1], door))
        return found

    def is_locked(self, address: Address) -> bool:
        """Return whether requests to an address must carry a key."""
        if self.disable_token_authorization or self.token_authorization == "off":
            return False
        return self.token_authorization == "on" or not address.is_local

    @property
    def has_keys(self) -> bool:
        """Whether there is an address that asks for keys; the metrics' own never does."""
        return any(self.is_locked(address) for address in (self.inference_address, self.management_address))

    def workers_at_start(self, device_count: int) -> int:
        """Return how many workers a model loaded at start gets; ``device_count`` is of GPUs, else of CPUs."""
        asked = 1 if self.debug else self.default_workers_per_model
        return asked if asked or self.dialect == "native" else device_count

    def to_json(self) -> str:
        """Return a JSON object of native texts that ``from_json`` turns back into equal settings."""
        texts = {key: setting.kind.show(getattr(self, key)) for key, setting in SETTINGS.items()}
        return json.dumps({"dialect": self.dialect, "written": self.written, **texts})

    @classmethod
    def from_json(cls, text: str) -> "Settings":
        """Return the settings that ``to_json`` wrote."""
        texts = json.loads(text)
        dialect, written = texts.pop("dialect"), tuple((key, value) for key, value in texts.pop("written"))
        values = {key: SETTINGS[key].kind.read(shown, NATIVE) for key, shown in texts.items()}
        return replace(settings_of(dialect, values), written=written)


def _same_place(one: Address, other: Address) -> bool:
    return one == other and not (one.scheme != "unix" and one.port == 0)


#: The rows by key, in the order of the docs.
SETTINGS: dict[str, Setting[object]] = {
    found.name: replace(found.metadata["setting"], key=found.name)
    for found in fields(Settings)
    if "setting" in found.metadata
}


def settings_of(dialect: str, values: Mapping[str, object]) -> Settings:
    """Return the settings of a dialect: the given values by key, and its defaults for the rest."""
    defaults = {key: setting.default(dialect) for key, setting in SETTINGS.items() if key not in values}
    # The rows tie each value to its field's type; a mapping cannot say so.
    complete = cast("dict[str, str]", {**defaults, **values})
    return Settings(dialect, **complete)  # type: ignore[arg-type]
