"""Text that somebody else wrote never acts on a terminal, a table, a spreadsheet or JSON."""

import json
from unicodedata import category

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli import output

HARMLESS = "é Île-de-France 漢字 [/x] [bold]data[v2] \u00a0"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\x9b31m", "\\x9b31m"),
        ("a\u202eb", "a<U+202E>b"),
        ("\u200b", "<U+200B>"),
        ("\ufeff", "<U+FEFF>"),
        ("a\rb", "a\\rb"),
        ("\x07\x00\x7f", "\\x07\\x00\\x7f"),
        ("\u2028", "<U+2028>"),
        ("\ud800", "<U+D800>"),
        ("\u2066x\u2069", "<U+2066>x<U+2069>"),
        (HARMLESS, HARMLESS),
        ("a\nb\tc", "a\nb\tc"),
    ],
)
def test_visible(text: str, shown: str) -> None:
    assert output.visible(text) == shown


@given(st.text())
def test_nothing_that_acts_is_left(text: str) -> None:
    shown = output.one_line(text)
    assert all(category(c)[0] not in "C" and category(c) not in ("Zl", "Zp") for c in shown)
    assert output.visible(shown) == shown


@given(st.text(), st.lists(st.integers(min_value=0, max_value=12), max_size=8))
def test_a_log_reads_the_same_in_any_chunks(text: str, cuts: list[int]) -> None:
    data = text.encode("utf-8", "surrogatepass")
    whole = output.LogText()
    expected = whole.feed(data) + whole.feed(b"", final=True)
    chunked, shown = output.LogText(), ""
    for cut in cuts:
        shown += chunked.feed(data[:cut])
        data = data[cut:]
    assert shown + chunked.feed(data) + chunked.feed(b"", final=True) == expected
    assert all(c in "\n\t" or category(c)[0] != "C" for c in expected)


def test_a_log_with_bad_bytes_progress_bars_and_dos_lines() -> None:
    log = output.LogText()
    assert log.feed(b"a\xff\r") + log.feed(b"\nb\rc\x1b[2J\xe2\x82") + log.feed(b"", final=True) == (
        "a\\xff\nb\nc\\x1b[2J\\xe2\\x82"
    )


@pytest.mark.parametrize("value", ["=1+1", "+1", "-1", "@x", "\tx", "\rx"])
def test_csv_cells_are_no_formulas(value: str) -> None:
    assert output.csv_cell(value).startswith("'")


def test_numbers_in_csv_stay_numbers() -> None:
    assert [output.csv_cell(value) for value in (-5, None, "a b")] == ["-5", "", "a b"]


@given(st.text())
def test_json_is_plain_ascii_and_says_the_same(text: str) -> None:
    written = output.as_json({"x": text})
    assert written.isascii()
    assert "\x7f" not in written
    assert "\x1b" not in written
    assert json.loads(written) == {"x": text}


def test_a_table_into_a_pipe_is_aligned_and_whole(capsys: pytest.CaptureFixture[str]) -> None:
    columns = [output.Column("NAME", shrinks=True), output.Column("N", right=True)]
    output.table(columns, [["x\n\x1b[1m" + "y" * 300, 1], [None, 22]])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert "y" * 300 in lines[1]
    assert "x\\n\\x1b[1m" in lines[1]
    assert lines[2].startswith("- ")
    assert len({len(line) for line in lines}) == 1


def test_a_narrow_terminal_leaves_out_the_spare_columns_first() -> None:
    columns = [output.Column("ID"), output.Column("B", spare=1), output.Column("C", spare=2)]
    assert output.fitting(columns, [10, 10, 10], 40) == {0: 10, 1: 10, 2: 10}
    assert output.fitting(columns, [10, 10, 10], 30) == {0: 10, 1: 10}
    assert output.fitting(columns, [10, 10, 10], 5) == {0: 10}


def test_a_narrow_terminal_cuts_long_names() -> None:
    columns = [output.Column("ID"), output.Column("NAME", shrinks=True), output.Column("PROJECT", shrinks=True)]
    assert output.fitting(columns, [10, 300, 20], 60) == {0: 10, 1: 26, 2: 20}
    assert output.fitting(columns, [10, 300, 20], 5) == {0: 10, 1: 12, 2: 12}


def test_a_bar_shows_little_as_something() -> None:
    assert output.bar(1, 10**9, 10) == "█" + "░" * 9
    assert output.bar(0, 0, 10) == "░" * 10
    assert output.bar(5, 5, 10) == "█" * 10
