"""A small pipeline under fire: killed, out of disk, with failing calls; its bundle with any byte changed."""

import os
import random
import struct

import _fire
import _workspace
import flips
import pytest
import under_fire

from algospace import artefacts
from algospace.errors import BundleError, InputError
from algospace.pipeline.status import STAGES
from algospace.policy import bundle


@pytest.fixture(scope="module")
def burning(tmp_path_factory):
    """A workspace after an undisturbed run, its stages' calls, and a judge of later runs."""
    library = _fire.compiled(tmp_path_factory.mktemp("library"))
    if library is None:
        pytest.skip("needs Linux and a C compiler")
    folder = _workspace.workspace(tmp_path_factory.mktemp("fire") / "workspace", _fire.TINY)
    with _fire.Furnace(folder, library) as furnace:
        runs = {}
        for stage in STAGES:
            _fire.clear(folder, stage)
            runs[stage] = furnace.run(stage)
            assert runs[stage].code == 0, runs[stage].stderr
        _fire.keep(folder, folder.with_name("store"))
        yield furnace, runs, under_fire.Referee(furnace, _fire.digests(folder))


@pytest.fixture(autouse=True)
def whole(request):
    """Every test begins with what the undisturbed run wrote."""
    if "burning" in request.fixturenames:
        folder = request.getfixturevalue("burning")[0].folder
        _fire.restore(folder, folder.with_name("store"))


@pytest.mark.parametrize(
    ("experiment", "stage"),
    [("boundary", stage) for stage in STAGES]
    + [("full", "prepare"), ("error", "rde"), ("full", "mrms"), ("error", "marl"), ("full", "export")],
)
def test_a_failing_call_loses_nothing(burning, experiment, stage):
    furnace, runs, referee = burning
    cases = [case for case in under_fire.cases(runs, 1000, 0) if case[:2] == (experiment, stage)]
    if experiment != "boundary":
        cases = [(experiment, stage, at + 1) for at in range(len(runs[stage].calls))]
    *_, at = random.Random(f"{experiment} {stage}").choice(cases)
    _fire.clear(furnace.folder, stage)
    ended = furnace.run(stage, at, under_fire.FAULTS[experiment], experiment == "full")
    assert ended.code == -9 if experiment == "boundary" else ended.code in (0, 2)
    assert referee.judge(stage, ended)["wrong"] == [], (at, ended.stderr)


@pytest.mark.parametrize("number", range(under_fire.QUICK_MOMENTS))
def test_a_kill_at_a_random_moment_loses_nothing(burning, number):
    furnace, runs, referee = burning
    _, stage, share = under_fire.cases(runs, 1000, under_fire.QUICK_MOMENTS)[number - under_fire.QUICK_MOMENTS]
    _fire.clear(furnace.folder, stage)
    ended = furnace.run(stage, kill_after=share * runs[stage].seconds)
    assert ended.code in (0, -9)  # on another machine's clock it may have ended before
    assert referee.judge(stage, ended)["wrong"] == [], (stage, share, ended.stderr)


def test_every_artefact_has_a_boundary(burning):
    """The kills of `boundary` come before and after each rename; each file of an artefact came by one."""
    furnace, runs, _ = burning
    files = _fire.digests(furnace.folder)
    curves = {name.split("/plots/")[0] for name in files if name.startswith("metrics/curves/")}
    renames = sum(run.calls.count(_fire.RENAME) for run in runs.values())
    assert renames >= len(curves) + sum(not name.startswith("metrics/curves/") for name in files)


def test_the_judge_sees_what_is_wrong(burning):
    furnace, _, _ = burning
    folder = furnace.folder
    path = folder / "metrics/prepare.json"
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    try:
        given = dict(_fire.digests(folder), **{"metrics/prepare.json": "another"})
        found = under_fire.Referee(furnace, given).judge("prepare", _fire.Ended(1, "Traceback\nx", [], 0.0))["wrong"]
        assert [text.split(":")[0] for text in found] == [
            under_fire.NOT_WHOLE, under_fire.NOT_ONE_LINE, under_fire.NOT_SAME,
        ]  # fmt: skip
    finally:
        path.write_bytes(content)


def test_random_flips_of_the_bundle_are_refused_by_name(burning):
    directory = burning[0].folder / "models/bundle"
    rng = random.Random(0)
    paths = sorted(path for path in directory.iterdir())
    for path in paths:
        content = path.read_bytes()
        for _ in range(2000 // len(paths)):
            at = rng.randrange(len(content))
            path.write_bytes(content[:at] + bytes([content[at] ^ rng.randrange(1, 256)]) + content[at + 1 :])
            assert flips.refused(directory, path), (path.name, at)
        path.write_bytes(content)
    bundle.verify(directory)
    assert not flips.refused(directory, paths[0])


@pytest.mark.parametrize("length", [0, 1, 2**32, 2**40, 2**63, 2**64 - 1, 100_000_001])
def test_oversized_headers_are_refused(tmp_path, length):
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", length) + b"{}" + b" " * 1000)
    with pytest.raises(InputError, match=r"x\.safetensors: expected safetensors") as caught:
        artefacts.read_tensors(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "header",
    [
        '{"a": {"dtype": "F32", "shape": [4611686018427387904, 4], "data_offsets": [0, 16]}}',
        '{"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 1000000]}}',
        '{"a": {"dtype": "F32", "shape": [4], "data_offsets": [16, 0]}}',
        '{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, '
        '"b": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}',
        '{"a": {"dtype": "F32", "shape": [-4], "data_offsets": [0, 16]}}',
        '{"__metadata__": {"algospace": 5}}',
        '{"__metadata__": {"algospace": "[]"}}',
        '{"__metadata__": {"algospace": "[' + "[" * 100_000 + '"}}',
        "[" * 100_000,
    ],
)
def test_lying_headers_are_refused(tmp_path, header):
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header.encode() + bytes(16 if "data" in header else 0))
    with pytest.raises(InputError, match=r"x\.safetensors: expected safetensors") as caught:
        artefacts.read_tensors(path)
    assert "\n" not in str(caught.value)


def test_a_pipe_in_place_of_a_file_is_refused(burning):
    """It would never end to be read."""
    path = burning[0].folder / "models/bundle/manifest.json"
    kept = path.rename(path.parents[1] / "kept.json")
    os.mkfifo(path)
    try:
        with pytest.raises(BundleError, match=r"manifest\.json"):
            bundle.verify(path.parent)
    finally:
        path.unlink()
        kept.rename(path)
