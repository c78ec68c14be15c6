"""The grammar of ``java.util.Properties``, case by case."""

import pytest

from marserve.config.properties import Entry, dump, parse
from marserve.errors import ConfigError


def values(text: str) -> dict[str, str]:
    return {key: entry.value for key, entry in parse(text).items()}


@pytest.mark.parametrize(
    ("line", "key", "value"),
    [
        ("key=value", "key", "value"),
        ("key:value", "key", "value"),
        ("key value", "key", "value"),
        ("key\tvalue", "key", "value"),
        ("  key  =  value", "key", "value"),
        ("\fkey\f:\fvalue", "key", "value"),
        ("key", "key", ""),
        ("key=", "key", ""),
        ("=value", "", "value"),
        ("key==value", "key", "=value"),
        ("key = : value", "key", ": value"),
        ("key value = more", "key", "value = more"),
        ("key=value  ", "key", "value  "),
        ("key=a#b!c", "key", "a#b!c"),
        ("key=http://host:80/a?b=c", "key", "http://host:80/a?b=c"),
        (r"a\=b\:c\ d=e", "a=b:c d", "e"),
        (r"key=a\tb\nc\rd\fe", "key", "a\tb\nc\rd\fe"),
        (r"key=C:\\temp\q", "key", r"C:\tempq"),
        (r"key=\u00fc\u20ac", "key", "ü€"),
        (r"key=\ud83d\ude00", "key", "😀"),
        (r"\u006bey=ä", "key", "ä"),
        ("key=a\\", "key", "a"),
        ("key=a\x0bb\x85c\u2028d", "key", "a\x0bb\x85c\u2028d"),
    ],
)
def test_one_line(line: str, key: str, value: str) -> None:
    assert values(line) == {key: value}


@pytest.mark.parametrize("text", ["", "\n\n", "# a=b", "  ! a=b", "#a\\\r\n\r\n", " \t\f\n"])
def test_lines_without_an_entry(text: str) -> None:
    assert values(text) == {}


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_every_line_end(end: str) -> None:
    assert values(f"a=1{end}# c{end}{end}b=2{end}") == {"a": "1", "b": "2"}


def test_continuation_drops_leading_blanks_and_reads_a_comment_sign_as_text() -> None:
    assert values("models={\\\n   'a': 1,\\\n\t# 2}\nb=3") == {"models": "{'a': 1,# 2}", "b": "3"}


@pytest.mark.parametrize("text", ["\\\n# c\\\na=1", "\\\n\n  \\\n! c\na=1\n", "a=1\n\\\n", "a=1\n\\"])
def test_what_follows_nothing_but_a_backslash_may_be_a_comment_or_blank(text: str) -> None:
    assert values(text) == {"a": "1"}


def test_an_even_number_of_backslashes_does_not_continue() -> None:
    assert values("a=x\\\\\nb=y") == {"a": "x\\", "b": "y"}


def test_a_blank_line_ends_a_continuation() -> None:
    assert values("a=x\\\n\nb=y") == {"a": "x", "b": "y"}


def test_a_comment_does_not_continue() -> None:
    assert values("# off \\\na=1") == {"a": "1"}


def test_the_last_of_equal_keys_counts_and_the_earlier_lines_are_told() -> None:
    found = parse("a=1\na=2\n\na=3")
    assert found == {"a": Entry("3", 4, (1, 2))}


def test_line_numbers_are_those_of_the_keys() -> None:
    found = parse("# c\na=1\\\n2\n\nb=3")
    assert (found["a"].line, found["b"].line) == (2, 5)


@pytest.mark.parametrize("text", [r"a=\u12", r"a=\uzzzz", r"a=\ud83d", r"\ude00=a", r"a=\u"])
def test_broken_escapes_name_their_line(text: str) -> None:
    with pytest.raises(ConfigError, match=r"my\.properties line 2"):
        parse("b=1\n" + text, "my.properties")


@pytest.mark.parametrize(
    "value",
    [
        "",
        "plain",
        "  blanks in front and behind  ",
        "a=b:c#d!e\\f",
        "tab\tline\nreturn\rform\f",
        "é € 𝄞 \x00 \x7f",
        '{\n  "name": "x.cfg"\n}',
        "$$NAME$$ \\u0041",
    ],
)
def test_what_is_written_reads_as_itself_and_is_ascii(value: str) -> None:
    text = dump([("key", value), (f"k {value}", "other")])
    assert text.isascii()
    assert values(text) == {"key": value, f"k {value}": "other"}


def test_what_is_written_is_what_java_writes() -> None:
    assert dump([("a b", " é: \t=\\")]) == "a\\ b=\\ \\u00e9\\: \\t\\=\\\\\n"
