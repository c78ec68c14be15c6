"""The OpenAPI description: it is one, and holds the schemas of the signatures."""

import jsonschema
import pytest
from served_fakes import Served

DIGITS = {
    "inputs": [{"name": "body", "shape": [0, 0], "data_type": "uint8", "content_type": "image/png"}],
    "outputs": [{"name": "body", "shape": [], "data_type": "scores"}],
    "input_type": "image/png",
}


def schemas_in(value: object) -> list[object]:
    """Return every schema of a description, wherever it is."""
    if isinstance(value, list):
        return [found for member in value for found in schemas_in(member)]
    if not isinstance(value, dict):
        return []
    here = [value["schema"]] if isinstance(value.get("schema"), dict) else []
    return here + [found for member in value.values() for found in schemas_in(member)]


def test_the_description_is_complete_in_itself() -> None:
    served = Served()
    served.add("fizbuz")
    served.add("plain", signature=None)
    served.add("digits", signature=DIGITS)

    told = served.ask("GET", "/api-description").json

    assert told["openapi"] == "3.1.0"
    assert told["info"]["title"]
    for path, operations in told["paths"].items():
        for method, operation in operations.items():
            assert method in ("get", "put", "post", "delete", "options"), path
            assert operation["responses"]
            declared = {row["name"] for row in operation.get("parameters", ()) if row["in"] == "path"}
            assert declared == {piece[1:-1] for piece in path.split("/") if piece.startswith("{")}
    for schema in schemas_in(told):
        jsonschema.Draft202012Validator.check_schema(schema)
        if "$ref" in schema:
            assert schema["$ref"] == "#/components/schemas/Error"
    assert set(told["components"]["schemas"]["Error"]["properties"]) >= {"code", "type", "message"}


def test_each_model_has_a_path_with_the_schemas_of_its_signature() -> None:
    served = Served()
    served.add("fizbuz")

    paths = served.ask("OPTIONS", "/").json["paths"]

    for path in ("/predictions/fizbuz", "/predictions/fizbuz/1.0"):
        asked = paths[path]["post"]["requestBody"]["content"]["application/json"]
        assert asked["schema"]["required"] == ["input.1"]
        assert asked["schema"]["properties"]["input.1"]["maximum"] == 1023
        assert asked["example"] == {"input.1": 14}
        answered = paths[path]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
        assert answered["properties"]["next_number"]["type"] == "string"


def test_a_body_that_is_no_json_has_its_own_content_type() -> None:
    served = Served()
    served.add("digits", signature=DIGITS)

    content = served.ask("OPTIONS", "/predictions/digits").json["paths"]["/predictions/digits"]["post"]["requestBody"]

    assert "image/png" in content["content"]


def test_a_model_without_a_signature_takes_anything() -> None:
    served = Served()
    served.add("plain", signature=None)

    content = served.ask("OPTIONS", "/predictions/plain").json["paths"]["/predictions/plain"]["post"]["requestBody"]

    assert set(content["content"]) == {"application/json", "*/*"}


def test_one_model_can_be_described_alone() -> None:
    served = Served()
    served.add("a")
    served.add("b")

    predictions = served.ask("OPTIONS", "/predictions/a").json["paths"]
    management = served.ask("OPTIONS", "/models/a").json["paths"]

    assert set(predictions) == {"/predictions/a", "/predictions/a/1.0"}
    assert set(management["/models/a"]) == {"get", "put", "delete"}
    assert "/models/a/{version}/set-default" in management


@pytest.mark.parametrize("target", ["/predictions/x", "/predictions/a/9", "/models/x"])
def test_a_model_that_is_not_there_cannot_be_described(target: str) -> None:
    served = Served()
    served.add("a")

    assert served.ask("OPTIONS", target).status == 404


def test_the_parameters_of_management_are_told_with_their_kinds() -> None:
    operations = Served(doors=("management",)).ask("GET", "/api-description").json["paths"]["/models"]

    rows = {row["name"]: row["schema"] for row in operations["post"]["parameters"]}
    assert rows["batch_size"] == {"type": "integer", "minimum": 1}
    body = operations["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert set(body["properties"]) == set(rows)


# ---- TorchServe's own; the pairs hold them letter for letter

INFERENCE = ["/", "/ping", "/v1/models/{model_name}:predict", "/v2/models/{model_name}/infer"]
INFERENCE += ["/predictions/{model_name}", "/predictions/{model_name}/{model_version}", "/api-description"]
ONE = ["/models/{model_name}", "/models/{model_name}/{model_version}"]
ONE += ["/models/{model_name}/{model_version}/set-default"]


@pytest.mark.parametrize(
    ("doors", "paths"),
    [
        (("inference",), [*INFERENCE, "/metrics"]),
        (("management",), ["/", "/models", *ONE, "/api-description", "/metrics"]),
        (("metrics",), ["/metrics"]),
        (("inference", "management"), [*INFERENCE, "/models", *ONE, "/metrics"]),
    ],
)
def test_torchserve_tells_of_the_doors_of_an_address(doors: tuple[str, ...], paths: list[str]) -> None:
    served = Served("torchserve", doors=doors)
    served.add("fizbuz")  # models are no part of it

    told = served.ask("OPTIONS", "/").json

    assert (told["openapi"], told["info"]["version"], list(told["paths"])) == ("3.0.1", "0.12.0", paths)
    assert served.ask("POST", "/api-description").json == told


def test_torchserve_describes_one_model_wherever_it_is_asked_for() -> None:
    served = Served("torchserve")
    served.add("fizbuz")

    for target in (
        "/predictions/fizbuz",
        "/explanations/fizbuz/1.0/tail",
        "/v2/models/fizbuz/infer",
        "/fizbuz/predict",
    ):
        assert served.ask("OPTIONS", target).json["info"] == {"title": "RESTful API for: fizbuz", "version": "1.0.0"}
    for target in ("/models/fizbuz", "/models/fizbuz/1.0"):
        title = "RESTful Management API for: fizbuz"
        assert served.ask("OPTIONS", target).json["info"] == {"title": title, "version": "0.12.0"}
    for target in ("/predictions/other", "/predictions/fizbuz/9", "/models/fizbuz/9", "/models/predict"):
        assert served.ask("OPTIONS", target).status == 404
    assert served.ask("OPTIONS", "/invocations").status == 400  # it was not loaded at start


def test_an_address_without_predictions_tells_of_none() -> None:
    served = Served(doors=("management",))
    served.add()

    assert not [path for path in served.ask("OPTIONS", "/").json["paths"] if path.startswith("/predictions")]


def test_a_signature_is_told_in_the_form_of_multi_model_server() -> None:
    served = Served("mms")
    served.add("fizbuz")
    served.add("plain", signature=None)

    told = served.ask("OPTIONS", "/predictions/fizbuz").json["paths"]["/prediction/fizbuz"]["post"]
    plain = served.ask("OPTIONS", "/predictions/plain").json["paths"]["/prediction/plain"]["post"]

    assert "input.1" in told["requestBody"]["content"]["application/json"]["schema"]["properties"]
    assert "next_number" in told["responses"]["200"]["content"]["application/json"]["schema"]["properties"]
    assert list(plain) == ["description", "operationId", "parameters", "responses"]
