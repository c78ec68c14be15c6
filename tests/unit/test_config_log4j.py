"""Files of log4j as settings, and what of them is told to have no effect."""

from pathlib import Path

import pytest

from marserve.config.log4j import Mapped, read_log4j

LAYOUT = '<PatternLayout pattern="%d{ISO8601} - %m%n"/>'
SHIPPED = """\
<?xml version="1.0" encoding="UTF-8"?>
<Configuration>
  <Appenders>
    <Console name="STDOUT" target="SYSTEM_OUT">{layout}</Console>
    <RollingFile name="ts_log" fileName="{place}/ts_log.log" filePattern="{place}/ts_log.%d{{dd-MMM}}.log.gz">
      <PatternLayout pattern="%d{{ISO8601}} [%-5p] %t %c - %m%n"/>
      <Policies><SizeBasedTriggeringPolicy size="100 MB"/><TimeBasedTriggeringPolicy/></Policies>
      <DefaultRolloverStrategy max="5"/>
    </RollingFile>
    <File name="ts_metrics" fileName="{metrics}/ts_metrics.log">{layout}</File>
  </Appenders>
  <Loggers>
    <Logger name="io.netty" level="error"/>
    <Logger name="org.pytorch.serve" level="{level}"><AppenderRef ref="ts_log"/></Logger>
    <Logger name="TS_METRICS" level="all"><AppenderRef ref="ts_metrics"/></Logger>
    <Root level="info"><AppenderRef ref="STDOUT"/><AppenderRef ref="ts_log"/></Root>
  </Loggers>
</Configuration>
"""


def mapped(folder: Path, text: str, **environ: str) -> Mapped:
    path = folder / "log4j2.xml"
    path.write_text(text)
    return read_log4j(path, environ)


def shipped(
    place: str = "${env:LOG_LOCATION:-logs}",
    metrics: str = "${env:METRICS_LOCATION:-logs}",
    level: str = "debug",
    layout: str = LAYOUT,
) -> str:
    return SHIPPED.format(place=place, metrics=metrics, level=level, layout=layout)


@pytest.mark.parametrize("environ", [{}, {"LOG_LOCATION": "/var/log/ts"}])
def test_a_file_as_it_is_shipped_changes_nothing(tmp_path: Path, environ: dict[str, str]) -> None:
    assert mapped(tmp_path, shipped(), **environ) == ({}, [])


def test_a_file_of_multi_model_server(tmp_path: Path) -> None:
    text = shipped(level="warn", metrics="/mnt").replace("org.pytorch.serve", "com.amazonaws.ml.mms")
    path = tmp_path / "log4j2.xml"
    path.write_text(text.replace("ts_", "mms_").replace("TS_", "MMS_"))
    expected = {"metrics_location": "/mnt", "log_level": "warning"}
    assert read_log4j(path, {}, "mms") == (expected, [])


@pytest.mark.parametrize(
    ("level", "ours"),
    [("trace", "debug"), ("INFO", "info"), ("warn", "warning"), ("fatal", "error"), ("off", "error")],
)
def test_the_servers_level(tmp_path: Path, level: str, ours: str) -> None:
    assert mapped(tmp_path, shipped(level=level)) == ({"log_level": ours}, [])


def test_the_roots_level_counts_where_the_server_has_none(tmp_path: Path) -> None:
    text = '<Configuration><Loggers><AsyncRoot level="debug"/></Loggers></Configuration>'
    assert mapped(tmp_path, text) == ({"log_level": "debug"}, [])


def test_the_folders_of_the_files(tmp_path: Path) -> None:
    text = shipped(place="/var/log/ts", metrics="${env:FAR:-/mnt}/${name}")
    text = text.replace("<Appenders>", '<Properties><Property name="name">metrics</Property></Properties><Appenders>')

    assert mapped(tmp_path, text, FAR="/far").settings == {
        "log_location": "/var/log/ts",
        "metrics_location": "/far/metrics",
    }


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (shipped(layout='<JsonLayout compact="true"/>'), "the JsonLayout of the appender STDOUT"),
        (shipped().replace("100 MB", "5 MB"), "the SizeBasedTriggeringPolicy of the appender ts_log"),
        (shipped().replace("</Appenders>", '<Kafka name="k"/></Appenders>'), "the appender k, a Kafka,"),
        (shipped().replace("io.netty", "com.example"), "the logger com.example"),
        (shipped(level="verbose"), "the level verbose of the logger org.pytorch.serve"),
        (shipped().replace('"all"', '"off"'), "the level of the logger TS_METRICS"),
        (shipped().replace('"all"', '"all" additivity="false"'), "additivity of the logger TS_METRICS"),
        (shipped(place="${sys:place}"), "the place ${sys:place}/ts_log.log of the appender ts_log"),
        (
            shipped().replace("ts_metrics.log", "m.log"),
            "the file's name m.log of the appender ts_metrics, which stays ts_metrics.log,",
        ),
        (shipped().replace("<Appenders>", "<CustomLevels/><Appenders>"), "<customlevels>"),
    ],
)
def test_what_has_no_effect_is_named(tmp_path: Path, text: str, told: str) -> None:
    found = mapped(tmp_path, text)

    assert told in found.ignored
    assert found.settings == {}


def test_a_folder_that_cannot_count_is_named(tmp_path: Path) -> None:
    found = mapped(tmp_path, shipped(place="/var/log/ts"), LOG_LOCATION="/elsewhere")

    assert found.settings == {}
    assert [phrase.split(" of ")[0] for phrase in found.ignored] == ["the folder /var/log/ts"]


def test_what_is_no_xml_comes_to_nothing(tmp_path: Path) -> None:
    found = mapped(tmp_path, "rootLogger.level = info\n")

    assert found.settings == {}
    assert found.ignored == ["the file, which is no XML (syntax error: line 1, column 0),"]
