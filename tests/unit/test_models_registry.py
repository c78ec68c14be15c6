"""Names, versions, defaults and routes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from marserve.errors import Conflict, Forbidden, ModelNotFound, VersionNotFound
from marserve.models.model import VersionConfig
from marserve.models.registry import Registry
from marserve.models.routes import routes_of


def version(name, number, *routes):
    config = VersionConfig(routes=routes_of({"routes": list(routes)}))
    return SimpleNamespace(name=name, version=number, config=config)


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


# Routes


def test_a_route_is_found_by_its_path_and_goes_with_its_model():
    made = Registry()
    made.add(version("a", "1.0", "POST /x/y/"))

    assert dict(made.methods_at(("x", "y"))) == {"POST": "a"}
    assert not made.methods_at(("x",))

    made.remove("a", None)
    assert not made.methods_at(("x", "y"))


def test_a_route_stays_as_long_as_one_version_names_it():
    made = Registry()
    made.add(version("a", "1.0", "POST /x"))
    made.add(version("a", "2.0", "POST /x", "GET /x"))
    made.set_default("a", "2.0")

    made.remove("a", "1.0")
    assert dict(made.methods_at(("x",))) == {"POST": "a", "GET": "a"}

    made.add(version("a", "3.0"))
    made.set_default("a", "3.0")
    made.remove("a", "2.0")
    assert not made.methods_at(("x",))


def test_a_route_is_one_models():
    made = Registry()
    made.add(version("a", "1.0", "POST /x"))

    with pytest.raises(Conflict, match="The route POST /x/ of b is one of model a already") as refused:
        made.add(version("b", "1.0", "POST /y", "POST /x/"))

    assert "Unregister a" in refused.value.hint
    assert list(made.models) == ["a"]
    assert not made.methods_at(("y",))
    made.add(version("b", "1.0", "PUT /x"))
    assert dict(made.methods_at(("x",))) == {"POST": "a", "PUT": "b"}


def test_what_is_discarded_takes_its_routes_along():
    made = Registry()
    first, second = version("a", "1.0", "POST /x"), version("a", "2.0", "POST /y")
    made.add(first)
    made.add(second)

    assert made.discard(first)
    assert not made.discard(first)

    assert made.find("a", None) is second
    assert (dict(made.methods_at(("x",))), dict(made.methods_at(("y",)))) == ({}, {"POST": "a"})
