"""Names, versions and defaults."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from marserve.errors import Conflict, Forbidden, ModelNotFound, VersionNotFound
from marserve.models.registry import Registry


def version(name, number):
    return SimpleNamespace(name=name, version=number)


def registry(**models):
    made = Registry()
    for name, numbers in models.items():
        for number in numbers:
            made.add(version(name, number))
    return made


def test_the_first_version_of_a_name_is_its_default():
    made = registry(a=["1.0", "2.0"])

    assert made.find("a", None).version == "1.0"
    assert made.find("a", "2.0").version == "2.0"


def test_a_default_is_what_it_was_set_to():
    made = registry(a=["1.0", "2.0"])

    made.set_default("a", "2.0")

    assert made.find("a", None).version == "2.0"
    with pytest.raises(VersionNotFound):
        made.set_default("a", "3.0")
    with pytest.raises(ModelNotFound):
        made.set_default("b", "1.0")


def test_what_is_not_registered_is_told_apart():
    made = registry(a=["1.0", "2.0"])

    with pytest.raises(ModelNotFound) as no_model:
        made.find("b", "1.0")
    with pytest.raises(VersionNotFound) as no_version:
        made.find("a", "3.0")

    assert not isinstance(no_model.value, VersionNotFound)
    assert (no_model.value.model, no_version.value.model, no_version.value.version) == ("b", "a", "3.0")
    assert "1.0, 2.0" in no_version.value.hint
    with pytest.raises(ModelNotFound):
        made.model("b")


def test_a_name_and_version_are_taken_once():
    made = registry(a=["1.0"])

    with pytest.raises(Conflict, match=r"1\.0 is already registered for model a"):
        made.add(version("a", "1.0"))

    made.check_free("a", "2.0")
    made.check_free("b", "1.0")


def test_a_default_goes_last():
    made = registry(a=["1.0", "2.0"])

    for asked in (None, "1.0"):
        with pytest.raises(Forbidden, match="default version for model a"):
            made.remove("a", asked)

    assert made.remove("a", "2.0").version == "2.0"
    assert made.remove("a", None).version == "1.0"
    assert list(made) == []
    with pytest.raises(ModelNotFound):
        made.remove("a", None)


def test_a_name_that_was_removed_begins_anew():
    made = registry(a=["1.0"])
    made.remove("a", "1.0")

    made.add(version("a", "7.0"))

    assert made.find("a", None).version == "7.0"


def test_versions_may_come_and_go_while_somebody_goes_through_them():
    made = registry(a=["1.0", "2.0"], b=["1.0"])

    seen = []
    for one in made:
        seen.append((one.name, one.version))
        if len(made.models["a"].versions) > 1:
            made.remove("a", "2.0")
            made.add(version("c", "1.0"))

    assert ("a", "1.0") in seen
    assert ("b", "1.0") in seen
    assert {one.name for one in made} == {"a", "b", "c"}
