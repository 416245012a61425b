import gzip
import tracemalloc

import numpy as np
import pytest

from algospace.data import csv_file
from algospace.data.sources import read
from algospace.errors import InputError

HEADER = "datetime,open,high,low,close,volume,note\n"
ROWS = "".join(f"2018-01-02 14:{minute:02d}:00,10,12.25,9,11,5,\n" for minute in range(60))
TEXTS = {
    "plain": HEADER + ROWS,
    "CRLF": (HEADER + ROWS).replace("\n", "\r\n"),
    "CR": (HEADER + ROWS).replace("\n", "\r"),
    "mixed ends": HEADER + ROWS.replace("\n", "\r\n", 7).replace("5,\n", "5,\r", 20),
    "BOM": "\ufeff" + HEADER + ROWS,
    "blank lines": "\n\n" + HEADER.replace("\n", "\n\n") + ROWS.replace("5,\n", "5,\n\n", 9) + "\n\n",
    "quoted": HEADER + ROWS.replace("12.25", '"12.25"'),
    "quoted line ends": HEADER + ROWS.replace("5,\n", '5,"a\nb\r\n, é€"\n', 11),
    "no last end": HEADER + ROWS[:-1],
    "faults": HEADER + ROWS.replace("12.25", "x").replace(",11,", ",11,,", 3) + "noon,1,1,1,1,1,\n",
}


@pytest.fixture
def csv(data_params):
    return data_params(source="csv", files=["a.csv"])


def test_blocks_cut_a_file_anywhere_and_it_reads_the_same(tmp_path, csv, monkeypatch):
    for text in TEXTS.values():
        (tmp_path / "a.csv").write_bytes(text.encode())
        whole = read(csv, tmp_path)
        for size in (1, 2, 7, 100):
            with monkeypatch.context() as patch:
                patch.setattr(csv_file, "_READ", size)
                patch.setattr(csv_file, "BLOCK_ROWS", 3)
                cut = read(csv, tmp_path)
            assert cut.rows.equals(whole.rows)
            assert [fault.first for fault in cut.faults] == [fault.first for fault in whole.faults]
            assert all(np.array_equal(a.rows, b.rows) for a, b in zip(cut.faults, whole.faults, strict=True))


@pytest.mark.parametrize("name", TEXTS)
def test_lines_are_those_of_the_text(tmp_path, csv, name):
    (tmp_path / "a.csv").write_bytes(TEXTS[name].encode())
    raw = read(csv, tmp_path)
    lines = TEXTS[name].replace("\r\n", "\n").replace("\r", "\n").split("\n")
    for row in (0, 30, 59):
        last = lines[raw.rows["line"][row] - 1]
        assert f"14:{row:02d}" in last or last.startswith(", é€")
    assert len(raw.rows) == 60 + (name == "faults")


def test_the_first_fault_of_each_kind_is_told(tmp_path, csv):
    (tmp_path / "a.csv").write_text(TEXTS["faults"])
    assert [(fault.kind, fault.total, fault.first.partition("a.csv")[2]) for fault in read(csv, tmp_path).faults] == [
        ("fields", 3, ":2: expected 7 fields, found 8"),
        ("time", 1, ":62: expected a date (YYYY-MM-DD or D/M/YYYY) and a time, found 'noon'"),
        ("number", 57, ":5: expected a number for high, found 'x'"),
    ]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\0" * 50_000_000, "a.csv:1: expected lines of at most 32768 bytes"),
        (HEADER.encode() + b"1" * 50_000_000, "a.csv:2: expected lines of at most 32768 bytes"),
        (HEADER.encode() + b"," * 50_000_000, "a.csv:2: expected lines of at most 32768 bytes"),
        (HEADER.encode() + b'"' + b"1\n" * 25_000_000, "a.csv:65538: expected comma-separated values"),
        (b"," * 32_000 + b"\n" + b"," * 50_000_000, "a.csv:2: expected lines of at most 32768 bytes"),
        (b"\n" * 50_000_000, "a.csv:100001: expected at most 100000 lines"),
        (HEADER.encode() + ROWS.encode() * 10_000, "a.csv:100001: expected at most 100000 lines"),
    ],
)
def test_a_gzip_bomb_is_refused_before_it_fills_the_memory(tmp_path, csv, monkeypatch, content, expected):
    monkeypatch.setattr(csv_file, "MAX_LINES", 100_000)
    (tmp_path / "a.csv").write_bytes(gzip.compress(content))
    assert (tmp_path / "a.csv").stat().st_size < 200_000
    tracemalloc.start()
    try:
        with pytest.raises(InputError) as caught:
            read(csv, tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 40_000_000
    finally:
        tracemalloc.stop()
    assert str(caught.value).replace(f"{tmp_path.as_posix()}/", "").startswith(expected)


def test_a_long_cell_is_shown_short(tmp_path, csv):
    (tmp_path / "a.csv").write_text(HEADER + ROWS + "2018-01-02 15:00:00,10,12,9," + "x" * 9999 + ",5,\n")
    assert read(csv, tmp_path).faults[0].first.endswith("expected a number for close, found '" + "x" * 40 + "...'")
