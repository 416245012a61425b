"""Damaged files end in one line that names them, or in bars that satisfy every invariant; nothing else is raised."""

import gzip

import bad_files
import pytest

from algospace.data import csv_file

HEADER = "datetime,open,high,low,close,volume\n"
ROW = "2018-01-02 14:{:02d}:00,10,12,9,11,5\n"
GOOD = HEADER + "".join(ROW.format(minute) for minute in range(30, 60, 5))
LAST = ROW.format(55)
MARCH = "2018-03-09 15:55,10,12,9,11,5\n2018-03-11 02:30,10,12,9,11,5\n2018-03-12 09:30,10,12,9,11,5\n"
NOVEMBER = "2018-11-02 15:55,10,12,9,11,5\n2018-11-04 01:30,10,12,9,11,5\n2018-11-05 09:30,10,12,9,11,5\n"

BARS, REFUSED = "bars", "refused"
FILES = {
    "good": (GOOD, BARS),
    "byte order mark": ("\ufeff" + GOOD, BARS),
    "CRLF": (GOOD.replace("\n", "\r\n"), BARS),
    "CR": (GOOD.replace("\n", "\r"), BARS),
    "no last line end": (GOOD[:-1], BARS),
    "NUL": (GOOD + "\0", REFUSED),
    "NUL inside": (GOOD.replace("12", "1\0002", 1), REFUSED),
    "UTF-16": (GOOD.encode("utf-16"), REFUSED),
    "UTF-16 without mark": (GOOD.encode("utf-16-be"), REFUSED),
    "UTF-32": (GOOD.encode("utf-32"), REFUSED),
    "Latin-1": ((GOOD + "é").encode("latin-1"), REFUSED),
    "short row": (GOOD + "2018-01-02 15:00:00,10,12\n", REFUSED),
    "long row": (GOOD + "2018-01-02 15:00:00,10,12,9,11,5,6\n", REFUSED),
    "quoted line end": (GOOD.replace(",volume", ",volume,note").replace(",5\n", ',5,"a\nb"\n'), BARS),
    "quoted line end in the header": ('"date\ntime",' + GOOD.partition(",")[2], REFUSED),
    "quote left open": (GOOD + '"2018-01-02 15:00:00,10,12,9,11,5\n', REFUSED),
    "quoted cells": (GOOD.replace("12", '"12"'), BARS),
    "nan": (GOOD.replace("12", "nan", 1), REFUSED),
    "inf": (GOOD.replace("12", "inf", 1), REFUSED),
    "1e400": (GOOD.replace("12", "1e400", 1), REFUSED),
    "1e-400": (GOOD.replace(",9,", ",1e-400,", 1), REFUSED),
    "1e308": (GOOD.replace("12", "1e308"), REFUSED),
    "5e-324": (GOOD.replace(",9,", ",5e-324,"), REFUSED),
    "a wrong print": (GOOD.replace("12", "99999999", 1), REFUSED),
    "hexadecimal": (GOOD.replace("12", "0xC", 1), REFUSED),
    "thousands": (GOOD.replace(",5\n", ',"1,234.5"\n', 1), REFUSED),
    "comma for point": (GOOD.replace(",5\n", ",1,5\n", 1), REFUSED),
    "underscore": (GOOD.replace("12", "1_2", 1), REFUSED),
    "digits of another script": (GOOD.replace("12", "١٢", 1), REFUSED),
    "date in a cell": (GOOD.replace("12", "2018-01-02", 1), REFUSED),
    "same time twice": (GOOD + LAST, REFUSED),
    "same file twice": (GOOD + GOOD, REFUSED),
    "reversed": (HEADER + "".join(reversed(GOOD.splitlines(keepends=True)[1:])), REFUSED),
    "time the clocks skipped": (HEADER + MARCH, REFUSED),
    "time the clocks showed twice": (HEADER + NOVEMBER, REFUSED),
    "mixed zones": (GOOD + "2018-01-02 10:00:00-05:00,10,12,9,11,5\n", BARS),
    "mixed zones that go back": (GOOD + "2018-01-02 09:30:00-05:00,10,12,9,11,5\n", REFUSED),
    "two readings of the date": (GOOD.replace("2018-01-02", "02/01/2018"), REFUSED),
    "mixed orders of the date": (GOOD + "02/01/2018 15:00,10,12,9,11,5\n", REFUSED),
    "seconds since 1970": (GOOD.replace("2018-01-02 14:30:00", "1514903400"), REFUSED),
    "year 9999": (GOOD + "9999-01-04 15:00,10,12,9,11,5\n", REFUSED),
    "a century later": (GOOD + "2099-01-05 15:00,10,12,9,11,5\n", BARS),
    "high below low": (GOOD.replace("12", "8", 1), REFUSED),
    "close above high": (GOOD.replace(",11,", ",13,", 1), REFUSED),
    "negative volume": (GOOD.replace(",5\n", ",-5\n", 1), REFUSED),
    "price of zero": (GOOD.replace(",9,", ",0,", 1), REFUSED),
    "price below zero": (GOOD.replace(",9,", ",-9,", 1), REFUSED),
    "outside the session": (GOOD + "2018-01-02 21:00:00,10,12,9,11,5\n", REFUSED),
    "off the mark": (GOOD + "2018-01-02 15:01:00,10,12,9,11,5\n", REFUSED),
    "empty": ("", REFUSED),
    "blank": (" \n\t\n\r\n", REFUSED),
    "header alone": (HEADER, REFUSED),
    "one bar": (HEADER + LAST, REFUSED),
    "no header": (GOOD.partition("\n")[2], REFUSED),
    "header twice": (HEADER + GOOD, REFUSED),
    "truncated last line": (GOOD[:-4], REFUSED),
    "truncated last number": (GOOD[:-1].removesuffix("5") + "\n", REFUSED),
    "gzip": (gzip.compress(GOOD.encode()), BARS),
    "gzip twice": (gzip.compress(gzip.compress(GOOD.encode())), REFUSED),
    "truncated gzip": (gzip.compress(GOOD.encode())[:-9], REFUSED),
    "gzip header alone": (gzip.compress(b"")[:10], REFUSED),
    "gzip with more behind it": (gzip.compress(GOOD.encode()) + b"more", REFUSED),
    "gzip of one line": (gzip.compress(b"1" * 10_000_000), REFUSED),
    "gzip of nothing but zeros": (gzip.compress(bytes(10_000_000)), REFUSED),
    "Parquet": (b"PAR1" + bytes(100) + b"PAR1", REFUSED),
    "a line without end": (HEADER + "1," * csv_file.MAX_LINE, REFUSED),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_hand_made_files(tmp_path, name):
    content, expected = FILES[name]
    content = content if isinstance(content, bytes) else content.encode()
    params = bad_files.section(timezone="America/New_York" if "clocks" in name else "UTC")
    assert bad_files.outcome(tmp_path, content, params) == expected
    bad_files.outcome(tmp_path, content, params.model_copy(update={"on_invalid": "drop"}))


@pytest.mark.parametrize("first", range(0, 10_000, 1_000))
def test_generated_files(tmp_path, first):
    outcomes = set()
    for number in range(first, first + 1_000):
        content, params = bad_files.case(number)
        try:
            outcomes.add(bad_files.outcome(tmp_path, content, params))
        except Exception as error:
            error.add_note(f"bad_files.case({number})")
            raise
    assert outcomes == {"refused", "bars"}
