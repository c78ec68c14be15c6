"""Everything that archives in the wild import from ``ts`` is there."""

from types import SimpleNamespace

import pytest
from ts_modules import module

from marserve.errors import PredictionException
from marserve.service.context import Context, RequestProcessor

SURFACE = {
    "": "__version__",
    "version": "__version__",
    "context": "Context RequestProcessor",
    "service": "Service PredictionException PREDICTION_METRIC emit_metrics",
    "model_loader": "ModelLoader ModelLoaderFactory TsModelLoader",
    "model_service.model_service": "ModelService SingleNodeService",
    "protocol.otf_message_handler": "create_predict_response create_load_model_response retrieve_msg "
    "send_intermediate_predict_response",
    "handler_utils.utils": "send_intermediate_predict_response import_class create_predict_response",
    "handler_utils.timer": "timed",
    "handler_utils.micro_batching": "MicroBatching",
    "handler_utils.text_utils": "get_tokenizer ngrams_iterator",
    "torch_handler.base_handler": "BaseHandler PROFILER_AVAILABLE",
    "torch_handler.vision_handler": "VisionHandler",
    "torch_handler.image_classifier": "ImageClassifier",
    "torch_handler.image_segmenter": "ImageSegmenter",
    "torch_handler.object_detector": "ObjectDetector",
    "torch_handler.text_handler": "TextHandler",
    "torch_handler.text_classifier": "TextClassifier",
    "torch_handler.densenet_handler": "DenseNetHandler list_classes_from_module",
    "torch_handler.contractions": "CONTRACTION_MAP",
    "torch_handler.request_envelope.base": "BaseEnvelope",
    "torch_handler.request_envelope.body": "BodyEnvelope",
    "torch_handler.request_envelope.json": "JSONEnvelope",
    "torch_handler.request_envelope.kserve": "KServeEnvelope",
    "torch_handler.request_envelope.kservev2": "KServev2Envelope",
    "torch_handler.unit_tests.test_utils.mock_context": "MockContext",
    "torch_handler.unit_tests.test_utils.model_dir": "copy_files download_model",
    "metrics.dimension": "Dimension",
    "metrics.metric": "Metric MetricUnit",
    "metrics.caching_metric": "CachingMetric",
    "metrics.metric_type_enum": "MetricTypes",
    "metrics.metric_cache_yaml_impl": "MetricsCacheYamlImpl",
    "metrics.metric_cache_abstract": "MetricCacheAbstract",
    "metrics.metric_abstract": "MetricAbstract",
    "metrics.metric_cache_errors": "GeneralMetricsCacheError MetricsCacheIOError MetricsCachePyYamlError "
    "MetricsCacheTypeError MetricsCacheValueError MetricsCacheKeyError",
    "metrics.metrics_store": "MetricsStore",
    "metrics.unit": "Units",
    "metrics.system_metrics": "collect_all cpu_utilization memory_used gpu_utilization",
    "metrics.process_memory_metric": "get_cpu_usage check_process_mem_usage",
    "metrics.metric_collector": "main",
    "metrics.metric_encoder": "MetricEncoder",
    "utils.util": "PredictionException list_classes_from_module load_label_mapping map_class_to_label "
    "get_yaml_config check_valid_pt2_backend CLEANUP_REGEX deprecated PT2Backend",
}


@pytest.mark.parametrize("name", SURFACE)
def test_the_names_of_a_module(name):
    found = module(name)

    assert [each for each in SURFACE[name].split() if not hasattr(found, each)] == []


def test_they_are_the_classes_that_workers_use():
    assert module("context").Context is Context
    assert module("context").RequestProcessor is RequestProcessor
    assert module("utils.util").PredictionException is PredictionException
    assert module("service").PredictionException is PredictionException


def test_the_release_whose_names_these_are():
    assert module("").__version__ == "0.12.0"


@pytest.mark.parametrize("name", ["protocol.otf_message_handler", "handler_utils.utils"])
def test_a_piece_of_each_answer_is_sent_through_the_context(name, monkeypatch):
    sent = []
    context = SimpleNamespace(send_intermediate=lambda values, status: sent.append((values, status)))
    send = module(name).send_intermediate_predict_response

    send(["x", "y"], {0: "a", 1: "b"}, "Intermediate Prediction success", 200, context)
    monkeypatch.setenv("LOCAL_RANK", "1")
    send(["z"], {0: "a"}, "Intermediate Prediction success", 200, context)

    assert sent == [(["x", "y"], 200)]


def test_import_class():
    import_class = module("handler_utils.utils").import_class

    assert import_class("ts.context.Context") is Context
    assert import_class("context.Context", "ts") is Context
    for name in ("", "Context", "ts.context.Nothing"):
        with pytest.raises(ImportError):
            import_class(name)


def test_a_deprecated_function_warns_and_works():
    @module("utils.util").deprecated("1.0", "other")
    def old(value):
        return value + 1

    with pytest.warns(PendingDeprecationWarning, match="old is deprecated since 1.0; use other"):
        assert old(1) == 2


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ('{"0": "cat", "1": "dog"}', {"0": "cat", "1": "dog"}),
        ('{"0": ["n01", "cat"]}', {"0": "cat"}),
        ('{"object_type_names": ["cat", "dog"]}', {"0": "cat", "1": "dog"}),
    ],
)
def test_the_three_forms_of_labels(tmp_path, text, labels):
    (tmp_path / "index_to_name.json").write_text(text)

    assert module("utils.util").load_label_mapping(str(tmp_path / "index_to_name.json")) == labels


@pytest.mark.parametrize(("text", "said"), [("[1]", "must be a JSON object"), ('{"0": 1}', "label of 0")])
def test_labels_that_are_none_are_refused(tmp_path, text, said):
    (tmp_path / "labels.json").write_text(text)

    with pytest.raises(ValueError, match=said):
        module("utils.util").load_label_mapping(str(tmp_path / "labels.json"))


def test_labels_without_a_file_are_told(tmp_path, caplog):
    assert module("utils.util").load_label_mapping(str(tmp_path / "no.json")) is None
    assert "classes are called by their numbers" in caplog.text


def test_classes_become_labels():
    label = module("utils.util").map_class_to_label

    assert label([[0.9, 0.1]], {"0": "cat", "1": "dog"}) == [{"cat": 0.9, "dog": 0.1}]
    assert label([[0.9, 0.1]], {"7": "cat"}, [[7, 3]]) == [{"cat": 0.9, "3": 0.1}]
    assert label([[0.9]]) == [{"0": 0.9}]
    with pytest.raises(TypeError, match="as a list"):
        label(((0.9,),))
