"""What SageMaker asks a container for."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from marserve.config.settings import settings_of
from marserve.doors.http.dialects import DIALECTS
from marserve.doors.http.replies import Replies
from marserve.doors.http.sagemaker import SageMaker, SageMakerDoor
from marserve.fittings import sagemaker_of
from marserve.models.registry import Registry
from marserve.planes.inference import InferencePlane


class FakePlane(InferencePlane):
    """A plane with so many workers."""

    def __init__(self, ready_count: int) -> None:
        super().__init__(Registry())
        self.startup = None
        self._ready_count = ready_count

    def health(self):
        return type("Health", (), {"ready_count": self._ready_count})()


def ping(facts: SageMaker, ready_count: int) -> tuple[int, str]:
    door = SageMakerDoor(FakePlane(ready_count), facts, Replies(DIALECTS["mms"]))
    answer = asyncio.run(door.ping(None))  # type: ignore[arg-type]
    return answer.status_code, json.loads(bytes(answer.body))["Status"]


@pytest.mark.parametrize(("ready_count", "told"), [(0, (503, "Models are not loaded")), (1, (200, "Healthy"))])
def test_one_model_must_be_there(ready_count: int, told: tuple[int, str]) -> None:
    assert ping(SageMaker(1, 1, "service:handle", is_multi_model=False), ready_count) == told


def test_of_many_models_their_handler_must_be_there(tmp_path: Path) -> None:
    file = tmp_path / "service.py"
    facts = SageMaker(1, 1, f"{file}:handle", is_multi_model=True)

    assert ping(facts, 0) == (503, "Service file unavailable")
    file.touch()
    assert ping(facts, 0) == (200, "Healthy")
    assert ping(SageMaker(1, 1, "some.module:handle", is_multi_model=True), 0) == (200, "Healthy")


def test_what_the_settings_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SAGEMAKER_MULTI_MODE", raising=False)
    told = {"sagemaker_endpoints": True, "default_service_handler": "a:b", "max_request_size": 6 * 2**20}

    assert sagemaker_of(settings_of("mms", {}), 3) is None
    assert sagemaker_of(settings_of("mms", told), 3) == SageMaker(3, 6 * 2**20, "a:b", False)
    monkeypatch.setenv("SAGEMAKER_MULTI_MODE", "True")
    assert sagemaker_of(settings_of("mms", told), 3).is_multi_model  # type: ignore[union-attr]
