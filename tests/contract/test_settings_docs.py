"""The docs page, the shipped ``config.properties`` and the old servers' keys are held to the rows."""

from pathlib import Path

import pytest

from marserve.config.document import markdown
from marserve.config.inert import INERT
from marserve.config.loading import load_settings
from marserve.config.settings import SETTINGS

ROOT = Path(__file__).resolve().parents[2]
#: Read while the rest is read; no values of their own.
STEERING = {"enable_envvars_config", "use_env_allowed_urls"}


def keys_of(server: str) -> list[str]:
    """Return every key that an old server read."""
    return (Path(__file__).parent / "settings" / f"{server}.txt").read_text(encoding="utf-8").split()


def test_the_page_is_what_the_rows_say() -> None:
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert page == markdown(), "run: marserve settings --markdown > docs/settings.md"


def test_every_setting_and_every_inert_key_is_on_the_page() -> None:
    page = markdown()
    missing = [key for key in (*SETTINGS, *INERT) if f"`{key}`" not in page]
    assert missing == []


@pytest.mark.parametrize("dialect", ["native", "torchserve"])
def test_the_shipped_configuration_has_nothing_to_complain_about(dialect: str) -> None:
    loaded = load_settings(ROOT / "config.properties", {}, dialect)
    assert loaded.warnings == []
    assert loaded.settings.model_store == Path("model-store")


def test_the_defaults_in_the_shipped_configuration_are_the_defaults() -> None:
    lines = (ROOT / "config.properties").read_text(encoding="utf-8").splitlines()
    commented = dict(line[1:].split("=", 1) for line in lines if line.startswith("#") and "=" in line.split(" ")[0])
    shown = {key: text for key, text in commented.items() if SETTINGS[key].defaults["native"]}
    assert shown, "nothing is commented out"
    for key, text in shown.items():
        assert SETTINGS[key].read(text, "native") == SETTINGS[key].default("native"), key


@pytest.mark.parametrize("server", ["torchserve", "mms"])
def test_every_key_of_the_old_servers_is_known(server: str) -> None:
    keys = keys_of(server)
    unknown = [key for key in keys if key not in {*SETTINGS, *INERT, *STEERING}]
    wrongly_new = [key for key in keys if key in SETTINGS and server not in SETTINGS[key].known_to]
    assert (unknown, wrongly_new) == ([], [])


@pytest.mark.parametrize("server", ["torchserve", "mms"])
def test_no_row_claims_an_old_server_that_did_not_have_it(server: str) -> None:
    claimed = [key for key, setting in SETTINGS.items() if server in setting.known_to]
    assert set(claimed) <= set(keys_of(server))
