"""A bundle is whole or refused, by the name of the file; what it carries decides as what was written."""

import hashlib
import json
import shutil

import numpy as np
import pytest

from algospace import artefacts
from algospace.errors import BundleError, InputError
from algospace.policy import bundle, golden
from algospace.policy.bundle import CARD, MANIFEST, TENSORS
from algospace.policy.decide import decide
from algospace.policy.golden import GOLDEN
from algospace.policy.graphs import GRAPHS

PROVENANCE = {"data": {"source": {"kind": "synthetic", "rows": 16464}}, "inputs": {"requirements.lock": "0" * 64}}
FILES = (MANIFEST, CARD, *TENSORS, *GRAPHS, *GOLDEN)


@pytest.fixture(scope="module")
def beside(trading, market_bars):
    """Golden decisions, and bytes that stand for graphs: whether they are whole is all that is asked here."""
    return {name: name.encode() for name in GRAPHS} | golden.contents(trading, market_bars.iloc[:9000])


@pytest.fixture(scope="module")
def written(trading, beside, tmp_path_factory):
    directory = tmp_path_factory.mktemp("bundle") / "bundle"
    return directory, bundle.write(directory, trading, PROVENANCE, beside)


@pytest.fixture
def copy(written, tmp_path):
    """A bundle to spoil."""
    return shutil.copytree(written[0], tmp_path / "bundle")


def refused(directory, name):
    """Both `verify` and `load` refuse, in one line that names the file."""
    for function in (bundle.verify, bundle.load):
        with pytest.raises(BundleError) as caught:
            function(directory)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)


def unloadable(directory):
    with pytest.raises(BundleError) as caught:
        bundle.load(directory)
    assert str(directory) in str(caught.value)
    assert "\n" not in str(caught.value)


def rewrite(directory, edit=lambda manifest: None):
    """Forge a manifest that fits the files: the work of someone who means it."""
    manifest = json.loads((directory / MANIFEST).read_text())
    manifest["files"] = {name: artefacts.sha256(directory / name) for name in manifest["files"]}
    edit(manifest)
    manifest.pop("digest", None)
    manifest["digest"] = hashlib.sha256(artefacts.json_bytes(manifest)).hexdigest()
    artefacts.write_json(directory / MANIFEST, manifest)


def change_tensors(directory, name, edit):
    tensors, header = artefacts.read_tensors(directory / name)
    edit(tensors, header)
    artefacts.write_tensors(directory / name, tensors, header)
    rewrite(directory)


def test_round_trip_decides_the_same(written, trading, market_bars):
    policy, manifest = bundle.load(str(written[0]))
    assert manifest["provenance"] == PROVENANCE
    assert policy.settings == trading.settings
    assert policy.calibration == trading.calibration
    bars = market_bars.iloc[:9000]
    found = decide(policy, bars)
    assert found.records == decide(trading, bars).records
    assert any(r["decision"] == "trade" for r in found.records)


def test_loaded_networks_are_frozen(written):
    policy, _ = bundle.load(written[0])
    for model in (policy.rde, policy.mrms, policy.team):
        assert not model.training
        assert not any(p.requires_grad for p in model.parameters())


def test_id_is_the_hash_of_the_manifest(written):
    directory, bundle_id = written
    assert bundle_id == hashlib.sha256((directory / MANIFEST).read_bytes()).hexdigest()
    assert bundle.verify(directory)["provenance"] == PROVENANCE


def test_same_policy_gives_the_same_bytes(written, trading, beside, tmp_path):
    directory, bundle_id = written
    assert bundle.write(tmp_path / "again", trading, PROVENANCE, beside) == bundle_id
    for name in FILES:
        assert (tmp_path / "again" / name).read_bytes() == (directory / name).read_bytes()


def test_bundle_of_a_bundle_is_the_same(written, beside, tmp_path):
    policy, manifest = bundle.load(written[0])
    assert bundle.write(tmp_path / "again", policy, manifest["provenance"], beside) == written[1]


def test_writing_over_a_bundle_is_whole(copy, written, trading, beside):
    assert bundle.write(copy, trading, PROVENANCE, beside) == written[1]
    bundle.verify(copy)
    bundle.write(copy, trading, PROVENANCE)
    assert set(bundle.verify(copy)["files"]) == {*TENSORS, CARD}


def test_manifest_describes_what_the_tensors_are(written, trading):
    described = bundle.verify(written[0])["described"]
    features, scales = described["features"], described["scales"]
    assert len(features["regime"]) == len(scales["regime"]["center"]) == trading.rde.config["n_features"]
    assert len(features["side"]) == len(scales["side"]["scale"]) == 9
    assert scales["regime"]["scale"] == trading.fitted.regime.scale.tolist()
    assert described["references"]["points"] == list(trading.fitted.reference.points.shape)
    assert described["parameters"]["marl"] == sum(p.numel() for p in trading.team.parameters())


def test_onnx_is_asked_of_a_bundle_that_has_none(trading, tmp_path):
    bundle.write(tmp_path / "bundle", trading, PROVENANCE)
    with pytest.raises(BundleError, match=r"bundle: expected consensus\.onnx, found none$"):
        bundle.load(tmp_path / "bundle", "onnx")


def test_graph_that_is_none_is_refused(written):
    with pytest.raises(BundleError, match="expected an ONNX graph") as caught:
        bundle.load(written[0], "onnx")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["../outside", "consensus.onnx.bak", "manifest.json"])
def test_forged_file_list_is_refused(copy, name):
    """Whatever a manifest says, nothing outside the directory is opened, and no unknown file counts."""

    def add(manifest):
        manifest["files"][name] = "0" * 64

    rewrite(copy, add)
    refused(copy, "files: expected")


def test_forged_file_list_without_the_networks_is_refused(copy):
    (copy / "rde.safetensors").unlink()
    manifest = json.loads((copy / MANIFEST).read_text())
    del manifest["files"]["rde.safetensors"]
    manifest.pop("digest")
    manifest["digest"] = hashlib.sha256(artefacts.json_bytes(manifest)).hexdigest()
    artefacts.write_json(copy / MANIFEST, manifest)
    refused(copy, "files: expected")


def test_other_policy_has_another_id(written, trading, tmp_path):
    other = trading._replace(settings=trading.settings._replace(seed=43))
    assert bundle.write(tmp_path / "other", other, PROVENANCE) != written[1]


def test_any_changed_byte_is_refused_by_its_file(copy):
    rng = np.random.default_rng(12)
    for name in FILES:
        path = copy / name
        content = path.read_bytes()
        for position in rng.integers(0, len(content), 60):
            spoiled = bytearray(content)
            spoiled[position] ^= int(rng.integers(1, 256))
            path.write_bytes(bytes(spoiled))
            with pytest.raises(BundleError, match=str(path)):
                bundle.verify(copy)
        path.write_bytes(content)
    bundle.load(copy)


def test_byte_that_makes_a_number_infinite_is_refused(copy):
    """Rows 16464 -> 1e464, which JSON reads as infinity."""
    path = copy / MANIFEST
    content = path.read_bytes()
    assert b" 16464" in content
    path.write_bytes(content.replace(b" 16464", b" 1e464"))
    refused(copy, str(path))


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b"null", b'{"schema": 1}', b"\xff", b"[" * 100_000, b'{"schema": NaN}']
)
def test_manifest_that_is_none_is_refused(copy, content):
    (copy / MANIFEST).write_bytes(content)
    refused(copy, MANIFEST)


def test_reformatted_manifest_is_refused(copy):
    path = copy / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text())))
    refused(copy, str(path))


@pytest.mark.parametrize("name", FILES)
def test_missing_file_is_named(copy, name):
    (copy / name).unlink()
    refused(copy, str(copy / name))


@pytest.mark.parametrize("name", FILES)
def test_truncated_file_is_named(copy, name):
    content = (copy / name).read_bytes()
    (copy / name).write_bytes(content[:-1])
    refused(copy, str(copy / name))
    (copy / name).write_bytes(b"")
    refused(copy, str(copy / name))


@pytest.mark.parametrize("name", FILES)
def test_longer_file_is_named(copy, name):
    (copy / name).write_bytes((copy / name).read_bytes() + b"\n")
    refused(copy, str(copy / name))


@pytest.mark.parametrize("name", ["extra.txt", ".hidden", "rde.safetensors.bak"])
def test_extra_file_is_named(copy, name):
    (copy / name).write_bytes(b"")
    refused(copy, str(copy / name))


def test_extra_directory_is_named(copy):
    (copy / "more").mkdir()
    refused(copy, str(copy / "more"))


def test_renamed_file_is_refused(copy):
    (copy / "rde.safetensors").rename(copy / "rde2.safetensors")
    refused(copy, "rde")


def test_swapped_files_are_refused(copy):
    (copy / "rde.safetensors").rename(copy / "x")
    (copy / "mrms.safetensors").rename(copy / "rde.safetensors")
    (copy / "x").rename(copy / "mrms.safetensors")
    refused(copy, ".safetensors")


def test_directory_in_place_of_a_file_is_refused(copy):
    (copy / "rde.safetensors").unlink()
    (copy / "rde.safetensors").mkdir()
    refused(copy, str(copy / "rde.safetensors"))


@pytest.mark.parametrize("name", FILES)
def test_link_is_refused(copy, tmp_path, name):
    """Even to the same content: it lies elsewhere and may change after it was verified."""
    (copy / name).rename(tmp_path / name)
    (copy / name).symlink_to(tmp_path / name)
    refused(copy, str(copy / name))


def test_a_manifest_without_an_end_is_not_read(copy):
    (copy / MANIFEST).unlink()
    (copy / MANIFEST).symlink_to("/dev/zero")
    refused(copy, str(copy / MANIFEST))
    with pytest.raises(InputError, match="expected a JSON file, found another thing"):
        artefacts.read_json(copy / MANIFEST)


def test_dangling_link_is_refused(copy, tmp_path):
    (copy / "rde.safetensors").unlink()
    (copy / "rde.safetensors").symlink_to(tmp_path / "nowhere")
    refused(copy, str(copy / "rde.safetensors"))


@pytest.mark.parametrize("make", ["missing", "file"])
def test_no_bundle_is_refused(tmp_path, make):
    path = tmp_path / "bundle"
    if make == "file":
        path.write_text("{}")
    refused(path, str(path))


@pytest.mark.parametrize(("step", "age"), [(-1, "an older"), (1, "a newer")])
def test_bundle_of_other_code_is_refused_as_that(copy, step, age):
    rewrite(copy, lambda manifest: manifest.update(schema=bundle.SCHEMA + step))
    refused(copy, str(copy / MANIFEST))
    refused(copy, f"found {bundle.SCHEMA + step}, of {age} algospace")


@pytest.mark.parametrize("name", TENSORS)
@pytest.mark.parametrize("length", [0, 7, 2**20, 2**63, 2**64 - 1])
def test_forged_tensors_whose_header_lies_about_its_length_are_refused(copy, name, length):
    content = (copy / name).read_bytes()
    (copy / name).write_bytes(length.to_bytes(8, "little") + content[8:])
    rewrite(copy)
    unloadable(copy)


def test_other_content_has_another_schema(written):
    """The names that a bundle holds belong to its schema: who changes them raises `SCHEMA` and states the new ones."""
    manifest = bundle.verify(written[0])
    tensors = {name: artefacts.read_tensors(written[0] / name) for name in TENSORS}
    names = {
        "manifest": sorted(manifest),
        "settings": {section: sorted(values) for section, values in manifest["settings"].items()},
        "features": manifest["described"]["features"],
        "tensors": {name: sorted(arrays) for name, (arrays, _) in tensors.items()},
        "sizes": {name: sorted(header) for name, (_, header) in tensors.items()},
    }
    digest = hashlib.sha256(artefacts.json_bytes(names)).hexdigest()[:12]
    assert (bundle.SCHEMA, digest) == (4, "6b67e9726e69")


@pytest.mark.parametrize("key", ["files", "settings", "seed", "threads", "calibration", "described", "provenance"])
def test_forged_manifest_without_a_key_is_refused(copy, key):
    rewrite(copy, lambda manifest: manifest.pop(key))
    unloadable(copy)


@pytest.mark.parametrize(
    ("part", "changes"),
    [
        ("contract", {"tick": 0.0}),
        ("contract", {"unknown": 1}),
        ("market", {"max_bars": "many"}),
        ("features", {"window_30m": 0}),
        ("features", {"window_regime": 48}),  # not the width of the regime network
        ("gate1", {"window": -1}),
    ],
)
def test_forged_settings_are_refused(copy, part, changes):
    rewrite(copy, lambda manifest: manifest["settings"][part].update(changes))
    unloadable(copy)


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": "42"},
        {"seed": 2**70},
        {"threads": 0},
        {"threads": 2**40},
        {"calibration": {"slope": "x", "intercept": 0.0}},
    ],
)
def test_forged_values_are_refused(copy, changes):
    rewrite(copy, lambda manifest: manifest.update(changes))
    unloadable(copy)


@pytest.mark.parametrize("name", TENSORS)
def test_forged_tensor_of_another_shape_is_refused(copy, name):
    def shorten(tensors, header):
        for key, array in tensors.items():
            if array.ndim and len(array) > 1:
                tensors[key] = np.ascontiguousarray(array[:-1])

    change_tensors(copy, name, shorten)
    bundle.verify(copy)
    unloadable(copy)


@pytest.mark.parametrize("name", TENSORS)
def test_forged_missing_tensor_is_refused(copy, name):
    change_tensors(copy, name, lambda tensors, header: tensors.pop(next(iter(tensors))))
    unloadable(copy)


@pytest.mark.parametrize("name", TENSORS[1:])
def test_forged_extra_tensor_is_refused(copy, name):
    change_tensors(copy, name, lambda tensors, header: tensors.update(extra=np.zeros(3, np.float32)))
    unloadable(copy)


@pytest.mark.parametrize("name", TENSORS)
def test_forged_nan_weights_are_refused(copy, name):
    def spoil(tensors, header):
        for array in tensors.values():
            if array.ndim:
                array.flat[0] = np.nan

    change_tensors(copy, name, spoil)
    unloadable(copy)


@pytest.mark.parametrize("name", TENSORS[1:])
@pytest.mark.parametrize("edit", ["unknown", "missing", "text"])
def test_forged_config_of_a_network_is_refused(copy, name, edit):
    def change(tensors, header):
        key = sorted(header)[0]
        if edit == "unknown":
            header["unknown"] = 1
        elif edit == "missing":
            del header[key]
        else:
            header[key] = "text"

    change_tensors(copy, name, change)
    unloadable(copy)


def test_forged_heads_that_do_not_divide_the_width_are_refused(copy):
    change_tensors(copy, "rde.safetensors", lambda tensors, header: header.update(n_heads=3))
    unloadable(copy)


@pytest.mark.parametrize("name", TENSORS)
def test_forged_file_without_a_header_is_refused(copy, name):
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(2, np.float32)}, copy / name)
    rewrite(copy)
    unloadable(copy)


def test_the_card_says_what_the_bundle_is(written, trading, tmp_path):
    """The watermark when the market was made up, numbers of the manifest, and the limits always."""
    card = (written[0] / CARD).read_text()
    contract = trading.settings.contract
    assert card.startswith(f"# AlgoSpace policy for {contract.symbol}\n\n**SYNTHETIC DATA.")
    assert f"tick {contract.tick:g}, {contract.point_value:g} USD a point" in card
    assert f"| marl | {sum(p.numel() for p in trading.team.parameters()):,} |" in card
    assert "16,464" in card
    source = {"kind": "csv", "rows": 9, "files": [{"path": "a.csv", "sha256": "1" * 64}]}
    bundle.write(tmp_path / "bundle", trading, {"data": {"source": source}})
    real = (tmp_path / "bundle" / CARD).read_text()
    assert "SYNTHETIC" not in real
    assert f"a.csv (sha256 {'1' * 64})" in real
    for text in (card, real):
        assert "It is research, and no advice to trade." in text
