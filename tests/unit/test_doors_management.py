"""The management routes: what is asked of the plane, and what clients read."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from served_fakes import Answer, Served

from marserve.batching.job import JobKind
from marserve.errors import HandlerFault, LoadError, ModelNotFound, NoWorker, OutOfMemory, about
from marserve.supervisor.lifecycle import WorkerState
from marserve.supervisor.worker import Autopsy

DIALECTS = ("native", "torchserve", "mms")
OLD = ("torchserve", "mms")


@pytest.mark.parametrize("dialect", DIALECTS)
def test_max_worker_alone_scales_to_one_worker(dialect: str) -> None:
    served = Served(dialect)
    version = served.add(workers=3)

    answer = served.ask("PUT", "/models/m?max_worker=1")

    assert (answer.status, answer.json) == (202, {"status": "Processing worker updates..."})
    assert (version.config.min_workers, version.config.max_workers, version.pool.target) == (1, 1, 1)


@pytest.mark.parametrize(
    ("target", "workers", "text"),
    [
        ("/models/m?min_worker=2&synchronous=true", 2, "Workers scaled to 2 for model: m"),
        ("/models/m/1.0?min_worker=3&synchronous=true", 3, "Workers scaled to 3 for model: m, version: 1.0"),
        ("/models/m?min_worker=0&synchronous=true", 0, "Workers scaled to 0 for model: m"),
    ],
)
def test_synchronous_scaling_tells_how_many_workers_there_are(target: str, workers: int, text: str) -> None:
    served = Served()
    version = served.add()

    answer = served.ask("PUT", target)

    assert (answer.status, answer.json) == (200, {"status": text})
    assert version.pool.target == workers


@pytest.mark.parametrize("dialect", DIALECTS)
def test_max_worker_below_min_worker_is_refused_and_changes_nothing(dialect: str) -> None:
    served = Served(dialect)
    version = served.add(workers=1)

    answer = served.ask("PUT", "/models/m?min_worker=3&max_worker=2")

    assert answer.status == 400
    assert answer.json["message"] == "max_worker cannot be less than min_worker."
    assert version.pool.target == 1


def test_scaling_that_cannot_load_says_why() -> None:
    served = Served()
    served.add().pool.failure_to_come = LoadError("It does not load.", "Mend it.", "Traceback:\n  boom")

    answer = served.ask("PUT", "/models/m?min_worker=2&synchronous=true")

    assert answer.status == 500
    assert "It does not load." in answer.json["message"]
    assert "boom" in json.dumps(answer.json["traceback"])


def test_a_parameter_names_the_version_where_the_path_names_none() -> None:
    served = Served()
    served.add(version="1.0")
    second = served.add(version="2.0")

    served.ask("PUT", "/models/m?min_worker=4&model_version=2.0")

    assert second.pool.target == 4


def test_registering_answers_once_the_workers_are_ready() -> None:
    served = Served()

    answer = served.ask("POST", "/models?url=digits.mar&initial_workers=2")

    assert (answer.status, answer.json) == (
        200,
        {"status": 'Model "digits" Version: 1.0 registered with 2 initial workers'},
    )
    assert served.registry.find("digits", None).pool.ready_count == 2


def test_registering_asynchronously_answers_at_once() -> None:
    answer = Served().ask("POST", "/models?url=digits.mar&initial_workers=2&synchronous=false")

    assert (answer.status, answer.json) == (202, {"status": "Processing worker updates..."})


@pytest.mark.parametrize(
    ("dialect", "text"),
    [
        (
            "native",
            'Model "digits" Version: 1.0 registered with 0 initial workers. '
            "Use scale workers API to add workers for the model.",
        ),
        ("mms", 'Model "digits" registered'),
    ],
)
def test_registering_without_workers_says_so(dialect: str, text: str) -> None:
    answer = Served(dialect).ask("POST", "/models?url=digits.mar&initial_workers=0")

    assert (answer.status, answer.json) == (200, {"status": text})


def test_every_parameter_of_a_registration_reaches_the_plane_in_its_unit() -> None:
    served = Served()

    served.ask(
        "POST",
        "/models?url=digits.mar&model_name=d&handler=h.py:f&runtime=python3&batch_size=8&max_batch_delay=250"
        "&initial_workers=0&response_timeout=7&startup_timeout=9.5",
    )

    (asked,) = served.management.asked
    assert (asked.location, asked.model_name, asked.handler, asked.runtime) == (
        "digits.mar",
        "d",
        "h.py:f",
        "python3",
    )
    assert (asked.batch_size, asked.max_batch_delay, asked.initial_workers) == (8, 0.25, 0)
    assert (asked.response_timeout, asked.startup_timeout) == (7.0, 9.5)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_json_body_holds_the_parameters_as_well(dialect: str) -> None:
    served = Served(dialect)
    body = json.dumps({"url": "digits.mar", "batch_size": "8", "initial_workers": 0, "synchronous": True}).encode()

    answer = served.ask("POST", "/models", body, content_type="application/json; charset=utf-8")

    assert answer.status == 200
    assert served.management.asked[0].batch_size == 8


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_json_body_may_begin_with_a_byte_order_mark_and_have_whole_floats(dialect: str) -> None:
    served = Served(dialect)
    body = b'\xef\xbb\xbf{"url": "digits.mar", "batch_size": 8.0}'

    assert served.ask("POST", "/models", body, content_type="application/json").status == 200
    assert served.management.asked[0].batch_size == 8


@pytest.mark.parametrize("dialect", OLD)
def test_to_the_old_servers_clients_the_first_of_several_counts_and_a_semicolon_separates(dialect: str) -> None:
    served = Served(dialect)

    answer = served.ask("POST", "/models?url=digits.mar;batch_size=2&batch_size=3&url=")

    assert answer.status == 200
    (asked,) = served.management.asked
    assert (asked.location, asked.batch_size) == ("digits.mar", 2)


@pytest.mark.parametrize(("timeout", "seconds"), [("2147483647", 2147483647), ("2147483648", None)])
def test_a_timeout_may_be_as_long_as_it_was(timeout: str, seconds: float | None) -> None:
    served = Served("torchserve")

    assert served.ask("POST", f"/models?url=digits.mar&response_timeout={timeout}").status == 200
    assert served.management.asked[0].response_timeout == seconds


def test_the_old_servers_take_a_body_in_single_quotes() -> None:
    served = Served("torchserve")

    answer = served.ask(
        "POST", "/models", b"{'url': 'digits.mar', 'batch_size': '4'}", content_type="application/json"
    )

    assert answer.status == 200
    assert served.management.asked[0].batch_size == 4


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_registration_without_url_is_refused(dialect: str) -> None:
    answer = Served(dialect).ask("POST", "/models")

    assert (answer.status, answer.json["message"]) == (400, "Parameter url is required.")


def test_an_empty_url_names_no_model() -> None:
    answer = Served("torchserve").ask("POST", "/models?url=")

    assert answer.json == {"code": 404, "type": "ModelNotFoundException", "message": "empty url"}


@pytest.mark.parametrize(
    ("target", "named", "allowed"),
    [
        ("/models?url=a.mar&batchsize=2", "batchsize", "batch_size"),
        ("/models?url=a.mar&batch_size=two", "batch_size", "a whole number from 1 on"),
        ("/models?url=a.mar&batch_size=0", "batch_size", "a whole number from 1 on"),
        ("/models?url=a.mar&synchronous=yes", "synchronous", "true or false"),
        ("/models?url=a.mar&response_timeout=0", "response_timeout", "seconds, above 0"),
        ("/models?url=a.mar&max_batch_delay=-1", "max_batch_delay", "milliseconds, from 0 on"),
        ("/models?url=a.mar&url=b.mar", "url", "given twice"),
    ],
)
def test_natively_a_wrong_parameter_is_named_with_what_is_allowed(target: str, named: str, allowed: str) -> None:
    served = Served()

    answer = served.ask("POST", target)

    assert answer.status == 400
    told = f"{answer.json['message']} {answer.json['hint']}"
    assert named in told
    assert allowed in told
    assert not served.management.asked


@pytest.mark.parametrize("dialect", OLD)
def test_to_the_old_servers_clients_a_malformed_number_counts_as_not_given(dialect: str, caplog) -> None:
    served = Served(dialect)

    answer = served.ask("POST", "/models?url=digits.mar&batch_size=nan&response_timeout=-1&spare=false")

    assert answer.status == 200
    (asked,) = served.management.asked
    assert (asked.batch_size, asked.response_timeout) == (None, None)
    for name in ("batch_size", "response_timeout", "spare"):
        assert name in caplog.text


@pytest.mark.parametrize(("dialect", "told"), [("native", True), ("torchserve", False)])
def test_what_a_snapshot_brings_back_was_loaded_at_start_but_for_torchserves_clients(
    dialect: str, told: bool
) -> None:
    served = Served(dialect)
    version = served.add("m")
    version.loaded_at_startup = True
    assert served.ask("GET", "/models/m").json[0]["loadedAtStartup"]

    version.is_restored = True

    assert served.ask("GET", "/models/m").json[0]["loadedAtStartup"] is told


@pytest.mark.parametrize(("dialect", "is_signed"), [("native", True), ("torchserve", True), ("mms", False)])
def test_a_download_is_signed_where_that_is_asked_for_and_known(dialect: str, is_signed: bool) -> None:
    served = Served(dialect)

    served.ask("POST", "/models?url=digits.mar&s3_sse_kms=true")

    assert served.management.asked[0].is_signed is is_signed


@pytest.mark.parametrize("dialect", OLD)
def test_to_the_old_servers_clients_a_negative_number_of_workers_is_none(dialect: str) -> None:
    served = Served(dialect)

    served.ask("POST", "/models?url=digits.mar&initial_workers=-1")

    assert served.management.asked[0].initial_workers == 0


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"[1]", "application/json"),
        (b"{", "application/json"),
        (b"[" * 50_000, "application/json"),
        (b"url=a", "text/plain"),
    ],
)
def test_a_body_that_holds_no_parameters_is_refused(body: bytes, content_type: str) -> None:
    answer = Served().ask("POST", "/models", body, content_type=content_type)

    assert answer.status == 400
    assert "body" in answer.json["message"]


def test_parameters_in_two_places_are_refused() -> None:
    answer = Served().ask("POST", "/models?url=a.mar", b'{"url": "b.mar"}', content_type="application/json")

    assert answer.status == 400


def test_a_body_that_is_too_large_for_parameters_is_refused() -> None:
    answer = Served().ask("POST", "/models", b" " * 100_000, content_type="application/json")

    assert answer.status == 413


def test_a_service_that_does_not_load_is_told_with_its_traceback_and_is_gone_again() -> None:
    served = Served()
    served.management.load_failure = LoadError("digits does not load.", "Mend it.", "Traceback:\n  KeyError: 'x'")

    answer = served.ask("POST", "/models?url=digits.mar&initial_workers=1")

    assert answer.status == 500
    assert "KeyError: 'x'" in json.dumps(answer.json["traceback"])
    assert not served.registry.models


@pytest.mark.parametrize(("dialect", "status"), [("native", 507), ("torchserve", 507), ("mms", 507)])
def test_running_out_of_memory_while_loading_is_told_apart(dialect: str, status: int) -> None:
    served = Served(dialect)
    served.management.load_failure = OutOfMemory("No memory is left.")

    assert served.ask("POST", "/models?url=digits.mar&initial_workers=1").status == status


def test_an_archive_that_is_not_there_is_told_as_such() -> None:
    served = Served("torchserve")
    served.management.open_failure = ModelNotFound("Model not found at: x.mar")

    answer = served.ask("POST", "/models?url=x.mar")

    assert answer.json == {"code": 404, "type": "ModelNotFoundException", "message": "Model not found at: x.mar"}


def test_a_version_that_is_taken_is_a_conflict() -> None:
    served = Served()
    served.add("digits")

    assert served.ask("POST", "/models?url=digits.mar").status == 409


def test_where_the_model_api_is_off_nothing_is_registered_or_unregistered() -> None:
    served = Served(is_open=False)
    served.add()

    for query in ("?url=a.mar", "?url=", ""):
        assert served.ask("POST", f"/models{query}").status == 405
    assert served.ask("DELETE", "/models/m").status == 405
    assert list(served.registry.models) == ["m"]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_models_are_listed_by_name_a_page_at_a_time(dialect: str) -> None:
    served = Served(dialect)
    for name in ("c", "a", "b"):
        served.add(name)

    first = served.ask("GET", "/models?limit=2").json
    second = served.ask("GET", f"/models?limit=2&next_page_token={first['nextPageToken']}").json

    assert [(model["modelName"], model["modelUrl"]) for model in first["models"]] == [("a", "a.mar"), ("b", "b.mar")]
    assert [model["modelName"] for model in second["models"]] == ["c"]
    assert "nextPageToken" not in second


@pytest.mark.parametrize(("dialect", "has_token"), [("native", False), ("torchserve", True), ("mms", True)])
def test_only_the_old_servers_clients_get_a_token_on_a_page_that_ends_with_the_last_model(
    dialect: str, has_token: bool
) -> None:
    served = Served(dialect)
    served.add("a")
    served.add("b")

    assert ("nextPageToken" in served.ask("GET", "/models?limit=2").json) is has_token


@pytest.mark.parametrize("dialect", OLD)
@pytest.mark.parametrize("query", ["limit=1000", "limit=-1", "next_page_token=-5", "next_page_token=x"])
def test_to_the_old_servers_clients_a_wrong_page_is_the_first_hundred(dialect: str, query: str) -> None:
    served = Served(dialect)
    served.add()

    assert [model["modelName"] for model in served.ask("GET", f"/models?{query}").json["models"]] == ["m"]


def test_natively_a_wrong_page_is_refused() -> None:
    assert Served().ask("GET", "/models?limit=1000").status == 400


def test_torchserve_describes_a_list_with_its_members_in_its_order() -> None:
    served = Served("torchserve")
    version = served.add(workers=1)
    version.pool.workers[0].state = WorkerState.LOADING

    answer = served.ask("GET", "/models/m")

    (entry,) = answer.json
    assert list(entry)[:9] == [
        "modelName",
        "modelVersion",
        "modelUrl",
        "runtime",
        "minWorkers",
        "maxWorkers",
        "batchSize",
        "maxBatchDelay",
        "responseTimeout",
    ]
    (worker,) = entry["workers"]
    assert (worker["id"], worker["status"], worker["gpu"]) == ("9000", "UNLOADING", False)
    assert worker["startTime"].endswith("Z")
    assert entry["jobQueueStatus"] == {"remainingCapacity": 100, "pendingRequests": 0}
    assert "digest" not in entry
    assert answer.body.startswith(b'[\n  {\n    "modelName": "m",\n')


def test_mms_describes_one_object() -> None:
    served = Served("mms")
    served.add(workers=1)

    entry = served.ask("GET", "/models/m").json

    assert (entry["modelName"], entry["workers"][0]["status"]) == ("m", "READY")
    assert "responseTimeout" not in entry


def test_natively_a_description_tells_what_an_operator_looks_for() -> None:
    served = Served()
    version = served.add(workers=2)
    version.pool.workers[1].in_flight_count = 1
    version.pool.failure = LoadError("It does not load.", "Mend it.", "Traceback:\n  boom")
    reason = "Worker m:1.0#9000 was ended by SIGKILL."
    version.pool.last_autopsy = Autopsy(reason, None, (7,), ("its last line",))

    (entry,) = served.ask("GET", "/models/m").json

    assert (entry["digest"], entry["signature"]["inputs"][0]["name"]) == ("ab12", "input.1")
    assert [worker["state"] for worker in entry["workers"]] == ["ready", "busy"]
    assert entry["lastDeath"] == {"reason": reason, "jobs": [7], "log": ["its last line"]}
    assert entry["lastError"]["traceback"] == ["Traceback:", "  boom"]


def test_the_memory_of_a_worker_is_that_of_its_process() -> None:
    served = Served()
    workers = served.add(workers=20).pool.workers
    workers[0].pid = os.getpid()
    workers[1].pid = 1 << 30  # one that has ended: no system has so many

    (entry,) = served.ask("GET", "/models/m").json

    told = [worker["memoryUsage"] for worker in entry["workers"]]
    assert told[0] > 1 << 20
    assert told[1:] == [0] * 19


def test_one_version_or_all_can_be_described() -> None:
    served = Served()
    served.add(version="1.0")
    served.add(version="2.0")

    def versions(target: str) -> list[str]:
        return [entry["modelVersion"] for entry in served.ask("GET", target).json]

    assert versions("/models/m") == ["1.0"]
    assert versions("/models/m/2.0") == ["2.0"]
    assert versions("/models/m/all") == ["1.0", "2.0"]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_an_unknown_model_or_version_is_not_found(dialect: str) -> None:
    served = Served(dialect)
    served.add()

    for method, target in (
        ("GET", "/models/x"),
        ("PUT", "/models/x?min_worker=1"),
        ("DELETE", "/models/x"),
        ("GET", "/models/m/9"),
        ("PUT", "/models/m/9/set-default"),
    ):
        assert served.ask(method, target).status == 404, (method, target)


def test_the_default_version_can_be_changed() -> None:
    served = Served()
    served.add(version="1.0")
    second = served.add(version="2.0")

    answer = served.ask("PUT", "/models/m/2.0/set-default")

    assert answer.json == {"status": 'Default version successfully updated for model "m" to "2.0"'}
    assert served.registry.find("m", None) is second


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_model_can_be_unregistered(dialect: str) -> None:
    served = Served(dialect)
    served.add()

    answer = served.ask("DELETE", "/models/m/")

    assert (answer.status, answer.json) == (200, {"status": 'Model "m" unregistered'})
    assert not served.registry.models


@pytest.mark.parametrize("dialect", ["native", "torchserve"])
def test_a_default_version_with_siblings_stays(dialect: str) -> None:
    served = Served(dialect)
    served.add(version="1.0")
    served.add(version="2.0")

    assert served.ask("DELETE", "/models/m/1.0").status == 403
    assert len(served.registry.models["m"].versions) == 2


# --- what TorchServe alone has -------------------------------------------------------------------------


def test_a_runtime_that_torchserve_does_not_know_is_refused_before_the_archive_is_looked_for() -> None:
    served = Served("torchserve")
    served.management.open_failure = AssertionError("The archive was looked for.")

    answer = served.ask("POST", "/models?url=m.mar&runtime=ruby")

    assert (answer.status, answer.json["message"]) == (400, "Invalid RuntimeType value: ruby")


def test_a_negative_number_of_workers_is_told_as_java_does_and_changes_nothing() -> None:
    served = Served("torchserve")
    version = served.add(workers=2)

    answer = served.ask("PUT", "/models/m?min_worker=-1")

    assert (answer.status, answer.json["type"]) == (500, "IndexOutOfBoundsException")
    assert version.pool.target == 2


def test_no_time_to_start_in_is_an_error_where_there_are_workers_to_start() -> None:
    served = Served("torchserve")

    assert served.ask("POST", "/models?url=m.mar&startup_timeout=0&initial_workers=0").status == 200
    assert served.registry.find("m", None).config.startup_timeout == 0.0


@pytest.mark.parametrize(("workers", "ready"), [(1, True), (0, False)])
def test_readiness_as_kserve_asks_for_it(workers: int, ready: bool) -> None:
    served = Served("torchserve")
    served.add(workers=workers)

    assert served.ask("GET", "/v1/models/m").json == {"name": "m", "ready": ready}
    assert served.ask("POST", "/v1/models/m").status == 405


def test_natively_there_is_neither_readiness_of_kserve_nor_a_description_of_the_services_own() -> None:
    served = Served()
    served.add()

    assert served.ask("GET", "/v1/models/m").status == 404
    assert served.ask("GET", "/models/m?customized=true").status == 400


class DescribingPool:
    """Answers the one job that it gets."""

    def __init__(self, end) -> None:
        self.end = end
        self.kinds: list[JobKind] = []

    def submit(self, job) -> None:
        self.kinds.append(job.kind)
        self.end(job.reply)


def describing(end) -> tuple[Answer, DescribingPool]:
    """Ask for a description of the service's own, which ``end`` gives to the reply of the job."""
    served = Served("torchserve")
    version = served.add()
    version.job_deadline = 120.0
    pool = DescribingPool(end)
    version.pool.submit = pool.submit
    return served.ask("GET", "/models/m?customized=true"), pool


def test_a_description_of_the_services_own() -> None:
    answer, pool = describing(lambda reply: reply.answer(200, b"", (), b'{"a": null, "b": [null, {"c": null}]}'))

    assert (answer.status, answer.json[0]["customizedMetadata"]) == (200, {"b": [None, {}]})
    assert pool.kinds == [JobKind.DESCRIBE]


def test_status_and_headers_of_a_description_are_the_services_choice() -> None:
    headers = (b"content-type", b"text/own", b"x-own", b"1")

    answer, _ = describing(lambda reply: reply.answer(203, b"", headers, b"{}"))

    assert (answer.status, answer.json[0]["customizedMetadata"]) == (203, {})
    assert (answer.headers["content-type"], answer.headers["x-own"]) == ("text/own", "1")


@pytest.mark.parametrize("said", [b"null", b"no JSON", b"5", b"[1]", b"\xff"])
def test_a_description_that_is_no_object_is_an_empty_one(said: bytes) -> None:
    answer, _ = describing(lambda reply: reply.answer(200, b"", (), said))

    assert (answer.status, answer.json[0]["customizedMetadata"]) == (200, {})


@pytest.mark.parametrize(
    ("end", "status", "message"),
    [
        (lambda reply: reply.fail(HandlerFault("It raised.")), 503, "Prediction failed"),
        (lambda reply: reply.start(200, b"", ()), 500, "Failed to get customized model matadata."),
    ],
)
def test_a_service_that_does_not_describe_itself(end, status: int, message: str) -> None:
    answer, _ = describing(end)

    assert (answer.status, answer.json["message"]) == (status, message)


def test_without_a_worker_nobody_describes() -> None:
    answer, _ = describing(lambda reply: reply.fail(about(NoWorker("None."), "m", "1.0")))

    assert answer.status == 503
    assert answer.json["message"].startswith('Model "m" has no worker to serve describe request.')


def test_what_was_downloaded_goes_with_its_last_version(tmp_path: Path) -> None:
    served = Served("torchserve")
    download = tmp_path / "m.mar"
    download.write_text("archive")
    for version in ("1.0", "2.0"):
        made = served.add(version=version)
        made.archive = replace(made.archive, download=str(download))

    served.ask("DELETE", "/models/m/2.0")
    assert download.exists()

    served.ask("DELETE", "/models/m")
    assert not download.exists()
