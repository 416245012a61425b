"""The prepared files: same bytes for the same content, no window across a split, nothing of test to learn from."""

import hashlib
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from algospace import artefacts
from algospace.data import splits
from algospace.data.bars import to_ms
from algospace.data.splits import EMBARGO, REPORT, SELECT, TEST, TRAIN
from algospace.errors import InputError
from algospace.features import outputs, prepared, table, windows
from algospace.features.prepared import RegimeRows

ATTRIBUTES = {"window": 2, "stride": 1, "features": ["a", "b"]}


def regime_rows() -> RegimeRows:
    rng = np.random.default_rng(0)
    return RegimeRows(
        rng.normal(size=(9, 12)).astype(np.float32),
        rng.normal(size=(9, 8)).astype(np.float32),
        np.arange(9) * 1_800_000,
        np.arange(1, 9),
        np.array([0, 0, 0, -1, 1, 1, 2, 3], np.int8),
    )


@pytest.fixture(scope="module")
def built(settings, fitted_state, gappy_bars):
    return table.build(gappy_bars, settings.contract, settings.indicators, settings.gate1, fitted_state.reference)


@pytest.fixture(scope="module")
def codes(gappy_bars, settings):
    small = settings.data.model_copy(update={"embargo_m30_bars": 46, "embargo_m5_bars": 100})
    return splits.split(gappy_bars, small)


@pytest.fixture(scope="module")
def rows(built, fitted_state):
    return windows.rows(built, fitted_state)


@pytest.fixture(scope="module")
def main(built, rows, codes, settings):
    return outputs.main_table(built, codes, windows.complete(rows, settings.features))


def regime_of(built, rows, bars, codes, length):
    start, close = (to_ms(built.m30[name]) for name in ("start_utc", "close_utc"))
    return outputs.regime_rows(start, close, rows.structure, rows.regime, bars, codes, length)


def test_hdf5_round_trip(tmp_path):
    prepared.write_regime_rows(tmp_path / "rows.h5", regime_rows(), ATTRIBUTES)
    found = prepared.read_regime_rows(tmp_path / "rows.h5")
    for name, array in regime_rows()._asdict().items():
        assert getattr(found, name).dtype == array.dtype
        np.testing.assert_array_equal(getattr(found, name), array)


def test_hdf5_gives_the_same_bytes_in_another_process(tmp_path):
    prepared.write_regime_rows(tmp_path / "here.h5", regime_rows(), ATTRIBUTES)
    code = (
        "import sys, time; sys.path.insert(0, sys.argv[1]); time.sleep(1.1)\n"
        "from pathlib import Path; import test_prepared as t; from algospace.features import prepared\n"
        "prepared.write_regime_rows(Path(sys.argv[2]), t.regime_rows(), t.ATTRIBUTES)"
    )
    there = tmp_path / "there.h5"
    subprocess.run([sys.executable, "-c", code, __file__.rpartition("/")[0], str(there)], check=True)
    here = (tmp_path / "here.h5").read_bytes()
    assert hashlib.sha256(here).digest() == hashlib.sha256(there.read_bytes()).digest()


@pytest.mark.parametrize("content", [b"", b"not hdf5", None])
def test_unreadable_regime_rows_are_named(tmp_path, content):
    path = tmp_path / "rows.h5"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"rows\.h5"):
        prepared.read_regime_rows(path)


def test_regime_rows_without_a_table_are_named(tmp_path):
    import h5py

    with h5py.File(tmp_path / "rows.h5", "w") as file:
        file["rows"] = np.zeros((3, 12), np.float32)
    with pytest.raises(InputError, match=r"rows\.h5"):
        prepared.read_regime_rows(tmp_path / "rows.h5")


@pytest.mark.parametrize("market", ["market_bars", "gappy_bars"])
def test_no_window_crosses_a_split(request, market, fitted_state, settings):
    """Every 5-minute bar that a window of a split is made of belongs to that split, and none is left out in vain."""
    bars = request.getfixturevalue(market)
    built = table.build(bars, settings.contract, settings.indicators, settings.gate1, fitted_state.reference)
    data = settings.data.model_copy(update={"embargo_m30_bars": 46, "embargo_m5_bars": 100})
    codes, length = splits.split(bars, data), 20
    found = regime_of(built, windows.rows(built, fitted_state), bars, codes, length)
    assert set(found.split.tolist()) >= {TRAIN, SELECT, REPORT, TEST, EMBARGO}
    starts = bars["start_utc"].to_numpy("datetime64[ms]")
    begin, end = (built.m30[name].to_numpy("datetime64[ms]") for name in ("start_utc", "close_utc"))
    first = np.searchsorted(starts, begin[found.window_end - length + 1])
    last = np.searchsorted(starts, end[found.window_end]) - 1
    for code, a, b in zip(found.split, first, last, strict=True):
        inside = set(codes[a : b + 1].tolist())
        if code != EMBARGO:
            assert inside == {int(code)}
        elif market == "market_bars":
            assert inside not in ({TRAIN}, {SELECT}, {REPORT}, {TEST})


def test_windows_are_whole(built, rows, codes, settings, gappy_bars):
    length = settings.features.window_regime
    found = regime_of(built, rows, gappy_bars, codes, length)
    assert np.isfinite(prepared.gather(found.rows, found.window_end, length)).all()
    one_earlier = found.window_end[0] - length
    assert one_earlier < 0 or not np.isfinite(found.rows[one_earlier]).all()
    np.testing.assert_array_equal(found.close_utc, built.m30["close_utc"].to_numpy("datetime64[ms]").astype(np.int64))


def test_rows_out_of_the_files_are_those_of_the_table(built, rows, codes, main, fitted_state, gappy_bars):
    regime = regime_of(built, rows, gappy_bars, codes, 20)
    found = windows.prepared_rows(main, regime, fitted_state)
    for name, array in rows._asdict().items():
        np.testing.assert_array_equal(getattr(found, name), array)


def test_candidates_have_a_direction_and_whole_windows(main, rows, settings):
    candidates = main[main["is_candidate"]]
    assert (candidates["candidate_direction"] != 0).all()
    assert windows.complete(rows, settings.features)[candidates.index].all()
    assert (candidates["close_utc"] < candidates["session_close_utc"]).all()
    assert len(candidates) > 200


@pytest.mark.parametrize("code", [TRAIN, SELECT, REPORT, TEST])
def test_decision_rows(main, code):
    found = prepared.decision_rows(main, code, "signals")
    assert found.tolist() == [
        i for i, (c, s) in enumerate(zip(main["is_candidate"], main["split"], strict=True)) if c and s == code
    ]
    synergies = prepared.decision_rows(main, code, "synergies")
    assert synergies.tolist() == [i for i in found if main["gate1_type"].iloc[i] != 0]
    bars = prepared.decision_rows(main, code, "bars")
    assert set(found) < set(bars)
    assert 0 < len(synergies) < len(found) < len(bars)


def test_learning_rows_hold_nothing_of_test(main):
    learning = prepared.learning_rows(main)
    assert TEST not in set(learning["split"])
    first_test = main.loc[main["split"] == TEST, "close_utc"].iloc[0]
    assert (learning["close_utc"] < first_test).all()
    assert {TRAIN, SELECT, REPORT} <= set(learning["split"])
    pd.testing.assert_frame_equal(learning, main.iloc[: len(learning)])
    assert len(prepared.learning_rows(learning)) == len(learning)


def test_candidate_table(main):
    events = outputs.candidate_table(main)
    assert len(events) == main["is_candidate"].sum()
    for event in events.sample(40, random_state=1).itertuples():
        row = main.iloc[event.row]
        assert event.close_utc == row["close_utc"]
        assert event.split == row["split"]
        assert event.label_end_utc == row["session_close_utc"]


@pytest.fixture(scope="module")
def write(gappy_bars, codes, fitted_state, settings):
    """Write the main file in chunks of so many rows."""

    def go(path, chunk_rows, at_least=0):
        stream = table.FeatureStream(settings.contract, settings.indicators, settings.gate1, fitted_state.reference)
        return outputs.write_main(
            path, gappy_bars, codes, stream, fitted_state, settings.features, at_least, chunk_rows
        )

    return go


def test_what_is_written_does_not_depend_on_the_chunks(tmp_path, write, main, built, rows, codes, gappy_bars, settings):
    whole, regime, events = tmp_path / "whole.parquet", *write(tmp_path / "whole.parquet", 10**9)
    pd.testing.assert_frame_equal(pd.read_parquet(whole), main.reset_index(drop=True), check_exact=True)
    expected = regime_of(built, rows, gappy_bars, codes, settings.features.window_regime)
    for found, wanted in zip(regime, expected, strict=True):
        np.testing.assert_array_equal(found, wanted)
    pd.testing.assert_frame_equal(events, outputs.candidate_table(main), check_exact=True)
    for chunk_rows in (97, 1000, 10_000):
        again = tmp_path / f"{chunk_rows}.parquet"
        other, others = write(again, chunk_rows)
        assert artefacts.sha256(again) == artefacts.sha256(whole)
        assert all(a.tobytes() == b.tobytes() for a, b in zip(other, regime, strict=True))
        pd.testing.assert_frame_equal(others, events, check_exact=True)


def test_too_few_candidates_are_refused_and_nothing_is_written(tmp_path, write, main):
    in_train = int((main["is_candidate"] & (main["split"] == TRAIN)).sum())
    with pytest.raises(InputError, match=rf"at least {in_train + 1} .* found {in_train}"):
        write(tmp_path / "x.parquet", 10_000, in_train + 1)
    assert not list(tmp_path.iterdir())
    write(tmp_path / "x.parquet", 10_000, in_train)


def vectors(main):
    close = main["m30_close_utc"].dropna().drop_duplicates()
    values = np.arange(2 * len(close), dtype=np.float32).reshape(-1, 2)
    frame = pd.DataFrame(values, columns=["regime_0", "regime_1"])
    frame.insert(0, "close_utc", close.to_numpy("datetime64[ms]"))
    frame["close_utc"] = frame["close_utc"].dt.tz_localize("UTC")
    return frame


def test_regime_vectors_at_each_row(main):
    given = vectors(main)
    at = main.iloc[[9000, 700, 9001]]
    found = prepared.regime_vectors_at(at, given)
    assert found.dtype == np.float32
    for close, vector in zip(at["m30_close_utc"], found, strict=True):
        assert (
            given.loc[given["close_utc"] == close, ["regime_0", "regime_1"]].to_numpy()[0].tolist() == vector.tolist()
        )


def test_missing_regime_vector_is_refused(main):
    at = main.iloc[[9000, 700]]
    gone = at["m30_close_utc"].iloc[1]
    given = vectors(main)
    with pytest.raises(InputError, match=str(gone)[:16]):
        prepared.regime_vectors_at(at, given[given["close_utc"] != gone])
    with pytest.raises(InputError, match="expected one"):
        prepared.regime_vectors_at(main.iloc[[0]], given)  # no half hour had closed


def test_manifest_and_figures_count(main, tmp_path, settings):
    path = tmp_path / "main_training_data.parquet"
    artefacts.write_parquet(path, main)
    source, dates = {"kind": "synthetic"}, {"train_first": "2022-01-03"}
    manifest = outputs.manifest(
        [path], source, settings.data, settings.contract, dates, ["mmd_0"], {"score": 90.0}, {"drift": {}}
    )
    artefacts.write_json(tmp_path / "manifest.json", manifest)
    read = artefacts.read_json(tmp_path / "manifest.json")
    assert (prepared.contract(read), prepared.reading(read)) == (settings.contract, settings.data)
    entry = manifest["files"][path.name]
    assert entry["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert entry["bytes"] == path.stat().st_size
    assert 1.5 < entry["compression_ratio"] < 10
    assert manifest["rows"] == len(main)
    assert manifest["columns"] == list(main.columns)
    figures = outputs.figures(main, {"score": 99.123456}, {"kind": "synthetic"}, {"default": 1}, {"max_psi": 2})
    assert figures["quality"] == {"score": 99.1235}
    assert sum(figures["synergies"].values()) == (main["gate1_type"] != 0).sum()
    assert sum(figures["candidates"].values()) == main["is_candidate"].sum()
    assert figures["filled_bars"] == main["is_synthetic"].sum()
