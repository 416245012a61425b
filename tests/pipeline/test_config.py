"""params.yaml: whatever is wrong is one line that names the key; profiles come and go without a trace."""

import math
from pathlib import Path

import pytest
import yaml

from algospace.data.params import DataParams
from algospace.errors import InputError
from algospace.indicators.params import IndicatorParams
from algospace.market import MarketParams
from algospace.marl.params import MARLParams
from algospace.mrms.params import MRMSParams
from algospace.params import RuntimeParams
from algospace.pipeline import config
from algospace.pipeline.config import load_params
from algospace.pipeline.profiles import load_profile, profiles, switch_profile
from algospace.rde.params import RDEParams
from algospace.synergy import Gate1Params

PARAMS = Path(__file__).parents[2] / "params.yaml"


@pytest.fixture
def edited(tmp_path):
    """Write params.yaml with some text replaced by other text."""

    def write(*pairs):
        text = PARAMS.read_text()
        for old, new in pairs:
            assert text.count(old) == 1, f"{old!r} occurs {text.count(old)} times"
            text = text.replace(old, new)
        path = tmp_path / "params.yaml"
        path.write_text(text)
        return path

    return write


def refused(section, model, path):
    with pytest.raises(InputError) as caught:
        load_params(section, model, path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message.removeprefix(str(path)).lstrip(": ")


def text_of(key, value):
    """A file of one wrong value at a dotted key."""
    content = yaml.safe_load(PARAMS.read_text())
    *parents, leaf = key.split(".")
    place = content
    for parent in parents:
        place = place[parent]
    place[leaf] = value
    return yaml.safe_dump(content)


def test_every_section_is_read_as_it_stands():
    content = yaml.safe_load(PARAMS.read_text())
    assert set(content) == set(config.SECTIONS)
    assert load_params("seed", int, PARAMS) == content["seed"]
    for section, model in (("market", MarketParams), ("rde", RDEParams), ("indicators", IndicatorParams)):
        assert load_params(section, model, PARAMS).model_dump() == content[section]


@pytest.mark.parametrize(
    ("section", "model", "key", "value", "words"),
    [
        ("runtime", RuntimeParams, "runtime.thread", 2, "found an unknown key"),
        ("market", MarketParams, "market.account.cash", 1.0, "expected one of equity, found an unknown key"),
        ("marl", MARLParams, "marl.ppo.lr", 1.0, "found an unknown key"),
        ("runtime", RuntimeParams, "runtime.threads", "two", 'found "two"'),
        ("runtime", RuntimeParams, "runtime.threads", 2.0, "found 2.0"),
        ("runtime", RuntimeParams, "runtime.threads", True, "found true"),
        ("runtime", RuntimeParams, "runtime.threads", None, "found null"),
        ("runtime", RuntimeParams, "runtime.threads", 0, "expected greater than or equal to 1, found 0"),
        ("runtime", RuntimeParams, "runtime.device", "gpu", "expected 'cpu' or 'cuda', found \"gpu\""),
        ("runtime", RuntimeParams, "runtime.precision", "float16", 'found "float16"'),
        ("rde", RDEParams, "rde.optimizer.accumulation", 257, "at most batch_size (256), found 257"),
        ("mrms", MRMSParams, "mrms.optimizer.accumulation", 1, "found an unknown key"),
        ("market", MarketParams, "market.account.equity", "100000", 'found "100000"'),
        ("market", MarketParams, "market.account.equity", -1.0, "found -1.0"),
        ("market", MarketParams, "market.limits", [1, 2], "found [1, 2]"),
        ("mrms", MRMSParams, "mrms.stop_grid", [0.5, "x"], 'found "x"'),
        ("mrms", MRMSParams, "mrms.stop_grid", [1.0, 1.0], "found [1.0, 1.0]"),
        ("mrms", MRMSParams, "mrms.reward_risk_grid", [2.0, 1.0], "found [2.0, 1.0]"),
        ("mrms", MRMSParams, "mrms.optimizer.batch_size", 1, "found 1"),
        ("rde", RDEParams, "rde.n_heads", 3, "found 3"),
        ("marl", MARLParams, "marl.n_heads", 1, "found 1"),
        ("marl", MARLParams, "marl.channels", [16, 32], "marl.channels"),
        ("data", DataParams, "data.source", "yahoo", 'found "yahoo"'),
        ("data", DataParams, "data.files", "a.csv", 'found "a.csv"'),
        (
            "data",
            DataParams,
            "data.auto",
            [{"symbol": "ES", "files": ["a"], "zone": 1}],
            "expected one of symbol, files,",
        ),
        ("seed", int, "seed", -1, "found -1"),
        ("seed", int, "seed", 2**32, f"found {2**32}"),
        ("seed", int, "seed", "x", 'found "x"'),
        ("seed", int, "seed", 1.5, "found 1.5"),
    ],
)
def test_wrong_value_is_named(tmp_path, section, model, key, value, words):
    path = tmp_path / "params.yaml"
    path.write_text(text_of(key, value))
    message = refused(section, model, path)
    assert message.startswith(key)
    assert words in message


def test_unknown_key_of_an_optional_section_lists_the_known_ones(tmp_path):
    contract = {"tick": 0.25, "point_value": 5.0, "commission": 0.6, "slippage_ticks": 1.0, "calendar": "NYSE"}
    path = tmp_path / "params.yaml"
    path.write_text(text_of("data.contract", contract | {"ticks": 1}))
    message = refused("data", DataParams, path)
    assert message.startswith("data.contract.ticks: expected one of tick, point_value,")


def test_wrong_value_of_an_element_is_named_by_its_place(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(text_of("mrms.stop_grid", [0.5, "x"]))
    assert refused("mrms", MRMSParams, path).startswith("mrms.stop_grid.1: ")


def test_rule_across_keys_reads_as_a_sentence(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(text_of("data.validation_fraction", 0.4))
    message = refused("data", DataParams, path)
    assert message.startswith("data: ")
    assert "train_fraction + validation_fraction" in message
    assert len(message) < 300, "not the whole section"


@pytest.mark.parametrize(("section", "model"), [("rde", RDEParams), ("marl", MARLParams)])
def test_heads_divide_the_width(tmp_path, section, model):
    path = tmp_path / "params.yaml"
    path.write_text(text_of(f"{section}.n_heads", 6))
    message = refused(section, model, path)
    assert message.startswith(f"{section}: expected")
    assert message.endswith("found 32")


def test_bad_date_reads_as_a_sentence(tmp_path):
    path = tmp_path / "params.yaml"
    for value in ("1950-01-01", "yesterday"):
        path.write_text(text_of("data.synthetic.start", value))
        message = refused("data", DataParams, path)
        assert message.startswith("data.synthetic.start: expected")
        assert "expected expected" not in message
        assert "expected Invalid" not in message


def test_unquoted_date_asks_for_quotes(edited):
    path = edited(('start: "2022-01-03"', "start: 2022-01-03"))
    assert refused("data", DataParams, path) == "data.synthetic.start: expected text (quote it), found a date"


def test_missing_key_is_named(edited):
    path = edited(("  max_bars: 100 ", "  # max_bars: 100 "))
    assert refused("market", MarketParams, path) == "market.max_bars: expected a value, found none"


def test_missing_section_is_named(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("seed: 1\n")
    assert refused("market", MarketParams, path) == "market: expected this section, found none"


def test_empty_section_is_named(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("seed: 1\nmarket:\n")
    assert refused("market", MarketParams, path).startswith("market: expected")


def test_unknown_section_is_refused_whatever_is_read(edited):
    path = edited(("\nruntime:", "\nruntimes:\n  x: 1\nruntime:"))
    assert refused("seed", int, path).startswith("runtimes: expected one of seed, runtime, data,")


@pytest.mark.parametrize("spelling", ["1e-4", "1E-4", "+1e-4", ".1e-3", "1.e-4", "0.0001"])
def test_exponents_are_numbers(edited, spelling):
    path = edited(("min_delta: 0.0001\n  folds", f"min_delta: {spelling}\n  folds"))
    assert load_params("rde", RDEParams, path).optimizer.min_delta == 0.0001


def test_exponent_is_no_whole_number(edited):
    path = edited(("threads: 2 ", "threads: 2e0 "))
    assert refused("runtime", RuntimeParams, path).startswith("runtime.threads: expected")


def test_text_that_looks_like_an_exponent_stays_text(tmp_path):
    """The exchange's symbols look like that: 6E1."""
    path = tmp_path / "params.yaml"
    path.write_text(PARAMS.read_text().replace("symbol: MES ", 'symbol: "6E1" '))
    assert load_params("data", DataParams, path).symbol == "6E1"


@pytest.mark.parametrize("value", [".nan", ".inf", "-.inf", "1e999"])
def test_number_that_is_not_finite_is_named(edited, value):
    path = edited(("annual_volatility: 0.18 ", f"annual_volatility: {value} "))
    message = refused("data", DataParams, path)
    assert message.startswith("data.synthetic.annual_volatility: expected a finite number, found ")


@pytest.mark.parametrize("other", ["seed", "market"])
def test_nan_anywhere_is_refused(edited, other):
    path = edited(("annual_volatility: 0.18 ", "annual_volatility: .nan "))
    assert refused(other, int, path).startswith("data.synthetic.annual_volatility")


def test_key_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "params.yaml"
    for key in ("2022-01-03", "[1, 2]"):
        path.write_text(PARAMS.read_text().replace("columns: {} ", f"columns: {{{key}: x}} "))
        assert refused("data", DataParams, path)


def test_key_given_twice_is_refused(tmp_path):
    """The first one would be silently lost."""
    path = tmp_path / "params.yaml"
    path.write_text(PARAMS.read_text() + "\nseed: 43\n")
    assert "seed" in refused("seed", int, path)
    with pytest.raises(InputError, match="seed"):
        switch_profile("full", path)


def test_syntax_error_names_its_line(tmp_path):
    path = tmp_path / "params.yaml"
    lines = PARAMS.read_text().splitlines()
    lines[7] = "  threads: [2"
    path.write_text("\n".join(lines))
    message = refused("seed", int, path)
    assert message.split(":")[0] in {"8", "9", "10"}
    assert "expected YAML" in message


@pytest.mark.parametrize("content", [b"seed: \xff\xfe\n", b"seed: 1\x00\n", b"seed: 1\x07\n"])
def test_bytes_that_are_no_text_are_refused(tmp_path, content):
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    assert "expected YAML" in refused("seed", int, path)


@pytest.mark.parametrize("content", ["", "- 1\n", "text\n", "# only a comment\n"])
def test_file_without_sections_is_refused(tmp_path, content):
    path = tmp_path / "params.yaml"
    path.write_text(content)
    assert "expected sections" in refused("seed", int, path)


def test_missing_file_is_named(tmp_path):
    assert refused("seed", int, tmp_path / "params.yaml") == "expected the parameter file, found nothing there"


@pytest.mark.parametrize("content", ["seed: {{ seed }}\n", "? [a, b]\n: 1\n", "seed: 1\nmrms: {[a]: 1}\n"])
def test_a_key_that_is_no_text_is_refused(tmp_path, content):
    """A template that was never filled in, say."""
    path = tmp_path / "params.yaml"
    path.write_text(content)
    assert "expected YAML" in refused("seed", int, path)


def test_tags_run_no_code(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("seed: !!python/object/apply:os.getcwd []\n")
    assert "expected YAML" in refused("seed", int, path)


def leaf(content, key):
    for part in key.split("."):
        content = content[part]
    return content


def test_defaults_of_the_profiles_are_those_of_params():
    content = yaml.safe_load(PARAMS.read_text())
    for name, profile in profiles().items():
        assert name != "default"
        for key, (default, value) in profile.items():
            assert leaf(content, key) == default, key
            assert type(leaf(content, key)) is type(default), key
            assert value != default, f"{name} changes nothing at {key}"


def test_profiles_agree_on_the_defaults_they_share():
    seen = {}
    for profile in profiles().values():
        for key, (default, _) in profile.items():
            assert seen.setdefault(key, default) == default


@pytest.mark.parametrize("name", sorted(profiles()))
def test_profile_and_back_leaves_the_same_bytes(tmp_path, name):
    path = tmp_path / "params.yaml"
    path.write_bytes(PARAMS.read_bytes())
    changes = switch_profile(name, path)
    assert len(changes) == len(profiles()[name])
    assert switch_profile(name, path) == []
    for key, (_, value) in profiles()[name].items():
        assert leaf(yaml.safe_load(path.read_text()), key) == value
    back = switch_profile("default", path)
    assert len(back) == len(changes)
    assert path.read_bytes() == PARAMS.read_bytes()


@pytest.mark.parametrize("name", sorted(profiles()))
def test_profile_keeps_comments_and_layout(tmp_path, name):
    path = tmp_path / "params.yaml"
    path.write_bytes(PARAMS.read_bytes())
    switch_profile(name, path)
    before, after = PARAMS.read_text().splitlines(), path.read_text().splitlines()
    assert len(after) == len(before)
    changed = [a for a, b in zip(after, before, strict=True) if a != b]
    assert len(changed) == len(profiles()[name])
    comments = [line.partition("#")[2] for line in before]
    assert [line.partition("#")[2] for line in after] == comments


@pytest.mark.parametrize("indent", ["  ", "    "])
def test_profile_replaces_a_list_that_stands_below_its_key(edited, indent):
    line = next(line for line in PARAMS.read_text().splitlines() if line.startswith("  seeds: "))
    comment = line[line.index("#") :]
    path = edited((line, "\n".join([f"  seeds:  {comment}", *(f"{indent}- {seed}  # one" for seed in range(3))])))
    assert "marl.seeds: [0, 1, 2] -> [0]" in switch_profile("bench", path)
    assert f"  seeds: [0]  {comment}  # one\n  folds: " in path.read_text()
    assert leaf(yaml.safe_load(path.read_text()), "marl.seeds") == [0]


@pytest.mark.parametrize("name", sorted(profiles()))
def test_profile_is_valid(tmp_path, name):
    path = tmp_path / "params.yaml"
    path.write_bytes(PARAMS.read_bytes())
    switch_profile(name, path)
    for section, model in (
        ("runtime", RuntimeParams), ("indicators", IndicatorParams), ("rde", RDEParams), ("mrms", MRMSParams),
        ("marl", MARLParams),
    ):  # fmt: skip
        load_params(section, model, path)


def test_one_profile_replaces_the_other(tmp_path):
    path, direct = tmp_path / "params.yaml", tmp_path / "direct.yaml"
    for each in (path, direct):
        each.write_bytes(PARAMS.read_bytes())
    switch_profile("full", path)
    switch_profile("prd", path)
    switch_profile("prd", direct)
    assert path.read_bytes() == direct.read_bytes()


def test_profile_leaves_other_keys_alone(edited):
    path = edited(("seed: 42 ", "seed: 7  "), ("symbol: MES ", "symbol: NQ  "))
    before = path.read_bytes()
    switch_profile("full", path)
    content = yaml.safe_load(path.read_text())
    assert content["seed"] == 7
    assert content["data"]["symbol"] == "NQ"
    switch_profile("default", path)
    assert path.read_bytes() == before


def test_unknown_profile_is_refused_before_anything_is_written(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_bytes(PARAMS.read_bytes())
    with pytest.raises(InputError, match="default, bench, full, legacy200, prd, prop_firm, found fulll"):
        switch_profile("fulll", path)
    assert path.read_bytes() == PARAMS.read_bytes()


@pytest.mark.parametrize("text", ["seed: 1\n", "seed: 1\nrde: 5\n", "seed: [1\n"])
def test_profile_of_an_incomplete_file_is_refused(tmp_path, text):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        switch_profile("full", path)
    assert "\n" not in str(caught.value)
    assert path.read_text() == text


def test_numbers_of_the_file_are_finite():
    def walk(value):
        if isinstance(value, dict):
            return all(map(walk, value.values()))
        if isinstance(value, list):
            return all(map(walk, value))
        return not isinstance(value, float) or math.isfinite(value)

    assert walk(yaml.safe_load(PARAMS.read_text()))


@pytest.mark.parametrize("current", ["default", "prd"])
def test_a_profile_is_read_whatever_is_switched_on(tmp_path, current):
    path = tmp_path / "params.yaml"
    path.write_text(PARAMS.read_text())
    switch_profile(current, path)
    assert load_profile("prd", "gate1", Gate1Params, path).window == 10
    assert load_profile("default", "gate1", Gate1Params, path).window == 30
    assert load_profile("prd", "indicators", IndicatorParams, path).nwrqk.h == 46.0
    assert load_profile("legacy200", "indicators", IndicatorParams, path).mlmi.k == 200


def test_rows_of_twelve_hold_seven_references(edited):
    path = edited(("references: 7 ", "references: 5 "))
    found = refused("indicators", IndicatorParams, path)
    assert found == "indicators.mmd: expected 7 references for rows of kind mmd12, found 5"
    signature = edited(("references: 7 ", "references: 5 "), ("kind: mmd12 ", "kind: sig155 "))
    assert load_params("indicators", IndicatorParams, signature).mmd.references == 5
