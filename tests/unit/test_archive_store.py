"""Where archives come from: names in a store, file:// and what may be downloaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from marserve.archive.store import check_allowed, list_store, resolve
from marserve.errors import BadRequest, ConfigError, Conflict, ModelNotFound


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Return a store with two files, a folder and a nested file."""
    store = tmp_path / "store"
    for name in ("fizbuz.mar", "old.model", "packed.tar.gz", "team/nested.mar", "folder/MAR-INF/MANIFEST.json"):
        path = store / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x" * 10)
    for name in ("notes.txt", ".hidden.mar"):
        (store / name).write_text("x")
    (tmp_path / "secret.mar").write_text("x")
    return store


#: What TorchServe allows by default.
ALLOWED_URLS = ("file://.*", "https?://.*")


def test_store_is_listed(store: Path) -> None:
    found = [(item.name, item.size, item.format) for item in list_store(store)]

    assert found == [
        ("fizbuz.mar", 10, "mar"),
        ("folder", 10, "folder"),
        ("old.model", 10, "mar"),
        ("packed.tar.gz", 10, "tgz"),
        ("team", 10, "folder"),
    ]


def test_store_that_is_not_there_is_told_of(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no folder"):
        list_store(tmp_path / "gone")


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("fizbuz.mar", "fizbuz.mar"),
        ("folder", "folder"),
        ("folder/", "folder"),
        ("team/nested.mar", "team/nested.mar"),
        ("/fizbuz.mar", "fizbuz.mar"),
        ("/somewhere/else/fizbuz.mar", "fizbuz.mar"),
    ],
)
def test_names_are_found_in_the_store(store: Path, location: str, expected: str) -> None:
    assert resolve(location, store, ALLOWED_URLS) == store / expected


@pytest.mark.parametrize("location", ["gone.mar", "/", ".", "team/gone.mar", "\0", "s3:/x", "x" * 300])
def test_what_is_not_there_is_not_found(store: Path, location: str) -> None:
    with pytest.raises(ModelNotFound, match=r"^Model not found at: "):
        resolve(location, store, ALLOWED_URLS)


@pytest.mark.parametrize("location", ["../secret.mar", "team/../../secret.mar", "..", "..\\secret.mar"])
def test_dots_are_refused(store: Path, location: str) -> None:
    with pytest.raises(ModelNotFound, match="Relative path is not allowed in url: "):
        resolve(location, store, ALLOWED_URLS)


def test_near_misses_are_named(store: Path) -> None:
    with pytest.raises(ModelNotFound) as found:
        resolve("fizzbuz.mar", store, ALLOWED_URLS)
    assert "fizbuz.mar" in found.value.hint
    with pytest.raises(ModelNotFound) as found:
        resolve("zzz", store, ALLOWED_URLS)
    assert "The model store has: fizbuz.mar, folder" in found.value.hint


def test_empty_name_and_missing_store_are_told_apart(store: Path) -> None:
    with pytest.raises(ModelNotFound, match="empty url"):
        resolve("", store, ALLOWED_URLS)
    for location in ("fizbuz.mar", "http://origin/m.mar"):
        with pytest.raises(ModelNotFound, match="Model store has not been configured"):
            resolve(location, None, ALLOWED_URLS)


def test_file_url_is_used_in_place(store: Path, tmp_path: Path) -> None:
    spaced = tmp_path / "with space.mar"
    spaced.write_text("x")

    assert resolve((tmp_path / "secret.mar").as_uri(), None, ALLOWED_URLS) == tmp_path / "secret.mar"
    assert resolve(spaced.as_uri(), store, ALLOWED_URLS) == spaced
    assert resolve(f"file://localhost{spaced}", store, ALLOWED_URLS) == spaced


@pytest.mark.parametrize("url", ["file:///gone.mar", "file://host/etc", "file://", "file:///%00"])
def test_file_url_that_leads_nowhere_is_not_found(url: str) -> None:
    with pytest.raises(ModelNotFound, match="Model not found at: "):
        resolve(url, None, ALLOWED_URLS)


@pytest.mark.parametrize("url", ["file:///etc/../etc/hosts", "file:///etc/%2e%2e/etc/hosts"])
def test_dots_in_a_file_url_are_refused(url: str) -> None:
    with pytest.raises(ModelNotFound, match="Relative path"):
        resolve(url, None, ALLOWED_URLS)


@pytest.mark.parametrize(
    ("url", "allowed", "is_allowed"),
    [
        ("https://s3.example/m.mar", ["https://s3\\.example/.*"], True),
        ("HTTPS://S3.EXAMPLE/m.mar", ["https://s3\\.example/.*"], True),
        ("https://s3.example.evil/m.mar", ["https://s3\\.example/.*"], False),
        ("https://evil/?https://s3.example/", ["https://s3\\.example/.*"], False),
        ("https://b/m.mar", ["https://a/.*", "https://b/.*"], True),
        ("https://b/m.mar", [], False),
        ("s3://bucket/m.mar", ALLOWED_URLS, False),
        ("file:///m.mar", ["https?://.*"], False),
    ],
)
def test_urls_must_match_as_a_whole(url: str, allowed: list[str], is_allowed: bool) -> None:
    if is_allowed:
        check_allowed(url, allowed)
        return
    with pytest.raises(ModelNotFound, match="does not match any allowed URL"):
        resolve(url, None, allowed)


def test_broken_expression_is_the_operators_fault() -> None:
    with pytest.raises(ConfigError, match="allowed_urls"):
        check_allowed("https://x", ["("])


@pytest.mark.parametrize(
    "url",
    [
        "http://origin",
        "http://origin/",
        "http://origin/.hidden",
        "http://origin/a%5Cb.mar",
        "http://origin/" + "x" * 300,
    ],
)
def test_url_without_a_usable_name_is_refused(store: Path, url: str) -> None:
    with pytest.raises(BadRequest, match="no usable file name"):
        resolve(url, store, ALLOWED_URLS)


def test_download_never_takes_the_place_of_a_stored_file(store: Path) -> None:
    with pytest.raises(Conflict, match=r"Model file already exists fizbuz\.mar"):
        resolve("http://origin/path/fizbuz.mar?version=2", store, ALLOWED_URLS)
