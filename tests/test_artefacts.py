"""Files are whole or absent, and the same content is the same bytes, in any process."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from algospace import artefacts
from algospace.errors import InputError


def frame():
    return pd.DataFrame(
        {
            "close_utc": pd.date_range("2022-01-03", periods=500, freq="5min", tz="UTC").as_unit("ms"),
            "x": np.random.default_rng(0).normal(size=500),
            "code": np.arange(500, dtype=np.int8) % 3,
            "flag": np.arange(500) % 2 == 0,
        },
        index=np.arange(500) + 7,
    )


def tensors():
    rng = np.random.default_rng(1)
    return {f"t/{i}": rng.normal(size=(i + 1, 3)).astype(np.float32) for i in range(20)} | {"n": np.array(3, np.int64)}


def fail(*_args, **_options):
    raise OSError("no space left on device")


WRITERS = {
    "bytes": lambda path: artefacts.write_bytes(path, b"new"),
    "json": lambda path: artefacts.write_json(path, {"new": 1}),
    "tensors": lambda path: artefacts.write_tensors(path, tensors(), {}),
    "parquet": lambda path: artefacts.write_parquet(path, frame()),
}


@pytest.mark.parametrize("broken", ["replace", "fsync"])
@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("before", [None, b"old"])
def test_failed_write_changes_nothing(tmp_path, monkeypatch, broken, writer, before):
    path = tmp_path / "artefact"
    if before is not None:
        path.write_bytes(before)
    monkeypatch.setattr(os, broken, fail)
    with pytest.raises(OSError, match="no space"):
        WRITERS[writer](path)
    assert sorted(tmp_path.iterdir()) == ([path] if before is not None else [])
    assert before is None or path.read_bytes() == before


@pytest.mark.parametrize("content", [{"x": float("nan")}, {"x": float("inf")}, {"x": object()}])
def test_content_that_is_no_json_writes_nothing(tmp_path, content):
    with pytest.raises((ValueError, TypeError)):
        artefacts.write_json(tmp_path / "x.json", content)
    assert not list(tmp_path.iterdir())


def test_file_is_synced_before_it_takes_the_name(tmp_path, monkeypatch):
    order = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: order.append("fsync") or fsync(fd))
    monkeypatch.setattr(os, "replace", lambda a, b: order.append("replace") or replace(a, b))
    artefacts.write_bytes(tmp_path / "deep" / "er" / "x", b"content")
    assert order == ["fsync", "replace"]
    assert (tmp_path / "deep" / "er" / "x").read_bytes() == b"content"
    assert [p.name for p in (tmp_path / "deep" / "er").iterdir()] == ["x"]


def test_json_is_sorted_readable_and_ends_in_a_newline(tmp_path):
    artefacts.write_json(tmp_path / "x.json", {"b": [1, 0.1, None, True], "a": {"d": "µ", "c": 1e-300}})
    text = (tmp_path / "x.json").read_text(encoding="utf-8")
    assert text.endswith("}\n")
    assert text.index('"a"') < text.index('"c"') < text.index('"d"') < text.index('"b"')
    assert "µ" in text
    assert artefacts.read_json(tmp_path / "x.json") == {"b": [1, 0.1, None, True], "a": {"d": "µ", "c": 1e-300}}
    assert artefacts.json_bytes({"a": 1, "b": 2}) == artefacts.json_bytes({"b": 2, "a": 1})


@pytest.mark.parametrize("content", [None, b"", b"{", b"\xff\xfe", b"{'a': 1}", b"[1" + b"0" * 5000 + b"]"])
def test_file_that_is_no_json_is_named(tmp_path, content):
    path = tmp_path / "x.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"x\.json") as caught:
        artefacts.read_json(path)
    assert "\n" not in str(caught.value)


def test_tensors_round_trip_with_their_shapes(tmp_path):
    given = {
        "scalar": np.array(2.5), "count": np.array(7, np.int64), "empty": np.zeros((0, 4), np.float32),
        "matrix": np.arange(6.0).reshape(2, 3), "transposed": np.arange(6, dtype=np.int32).reshape(2, 3).T,
        "strided": np.arange(10, dtype=np.uint8)[::3], "flag": np.array([True, False]),
    }  # fmt: skip
    header = {"b": [1, 2], "a": {"x": None}, "text": "µ"}
    artefacts.write_tensors(tmp_path / "x", given, header)
    found, read = artefacts.read_tensors(tmp_path / "x")
    assert read == header
    assert found.keys() == given.keys()
    for name, array in given.items():
        assert found[name].shape == array.shape, name
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_tensor_bytes_do_not_depend_on_the_order_given():
    given = tensors()
    turned = dict(reversed(given.items()))
    assert artefacts.tensor_bytes(given, {"a": 1, "b": 2}) == artefacts.tensor_bytes(turned, {"b": 2, "a": 1})


@pytest.mark.parametrize("content", [None, b"", b"\x00" * 64, b"not tensors at all", "directory"])
def test_file_without_tensors_is_named(tmp_path, content):
    path = tmp_path / "x.safetensors"
    if content == "directory":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"x\.safetensors") as caught:
        artefacts.read_tensors(path)
    assert "\n" not in str(caught.value)


def test_tensors_without_our_header_are_refused(tmp_path):
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(2)}, tmp_path / "x.safetensors")
    with pytest.raises(InputError, match=r"x\.safetensors"):
        artefacts.read_tensors(tmp_path / "x.safetensors")


def test_truncated_tensors_are_refused(tmp_path):
    artefacts.write_tensors(tmp_path / "x", tensors(), {})
    content = (tmp_path / "x").read_bytes()
    for n in (1, 8, 50, len(content) // 2, len(content) - 1):
        (tmp_path / "x").write_bytes(content[:n])
        with pytest.raises(InputError):
            artefacts.read_tensors(tmp_path / "x")


def test_parquet_round_trip(tmp_path):
    artefacts.write_parquet(tmp_path / "x.parquet", frame())
    found = pd.read_parquet(tmp_path / "x.parquet")
    pd.testing.assert_frame_equal(found, frame().reset_index(drop=True), check_exact=True)


@pytest.mark.parametrize("piece", [1, 7, 100, 499, 500])
def test_parquet_bytes_do_not_depend_on_the_pieces(tmp_path, monkeypatch, piece):
    monkeypatch.setattr(artefacts, "ROW_GROUP", 120)
    artefacts.write_parquet(tmp_path / "whole.parquet", frame())
    with artefacts.ParquetStream(tmp_path / "pieces.parquet") as file:
        for start in range(0, 500, piece):
            file.write(frame().iloc[start : start + piece])
    assert artefacts.sha256(tmp_path / "pieces.parquet") == artefacts.sha256(tmp_path / "whole.parquet")
    assert pq.ParquetFile(tmp_path / "whole.parquet").num_row_groups == 5


def test_an_error_between_two_pieces_leaves_nothing(tmp_path):
    def half():
        with artefacts.ParquetStream(tmp_path / "x.parquet") as file:
            file.write(frame())
            raise InputError("bad bar")

    with pytest.raises(InputError, match="bad bar"):
        half()
    assert not list(tmp_path.iterdir())


def test_same_bytes_in_another_process(tmp_path):
    """Hashing of strings differs there: no order may hang on it."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import test_artefacts as t, hashlib\n"
        "from algospace import artefacts; from pathlib import Path; there = Path(sys.argv[2])\n"
        "artefacts.write_parquet(there, t.frame())\n"
        "print(artefacts.sha256(there))\n"
        "print(hashlib.sha256(artefacts.tensor_bytes(t.tensors(), {'b': 1, 'a': 2})).hexdigest())"
    )
    artefacts.write_parquet(tmp_path / "here.parquet", frame())
    here = [
        artefacts.sha256(tmp_path / "here.parquet"),
        hashlib.sha256(artefacts.tensor_bytes(tensors(), {"a": 2, "b": 1})).hexdigest(),
    ]
    for seed in ("1", "2"):
        there = subprocess.run(
            [sys.executable, "-c", code, str(Path(__file__).parent), str(tmp_path / f"{seed}.parquet")],
            check=True, capture_output=True, text=True, env=os.environ | {"PYTHONHASHSEED": seed},
        )  # fmt: skip
        assert there.stdout.split() == here


@pytest.mark.parametrize("cut", [0, 3, 200, -1, -500])
def test_parquet_that_is_damaged_is_named(tmp_path, cut):
    path = tmp_path / "a.parquet"
    with pytest.raises(InputError, match=r"a\.parquet: expected a Parquet file, found nothing there"):
        artefacts.read_parquet(path)
    artefacts.write_parquet(path, pd.DataFrame({"x": np.arange(1000.0)}))
    assert len(artefacts.read_parquet(path, columns=["x"])) == 1000
    with pytest.raises(InputError, match=r"a\.parquet: expected .* the columns asked for, found: No match"):
        artefacts.read_parquet(path, columns=["y"])
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(
        InputError, match=r"a\.parquet: expected a whole Parquet file with the columns asked for, found: "
    ) as caught:
        artefacts.read_parquet(path)
    assert "\n" not in str(caught.value)


def test_sha256_of_a_file(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert artefacts.sha256(tmp_path / "x") == hashlib.sha256(b"abc").hexdigest()
