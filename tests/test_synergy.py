from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
import yaml

from algospace.errors import InputError
from algospace.synergy import Gate1Params, detect

PRD = Gate1Params(
    window=10,
    cooldown=5,
    mlmi_dead_band=0.0,
    nwrqk_min_slope=0.0,
    fvg_strength_size=0.01,
    min_train_events=0,
)
TYPES = {"mnf": 1, "mfn": 2, "nfm": 3, "nmf": 4}
KINDS = "mnf"


def run(text, params=PRD, side=1, session=None, strength=0.5):
    """One bar a character group: 'm.n f' is MLMI, nothing, NW-RQK, nothing, FVG; '(mf)' is a tie."""
    bars, inside = [], False
    for character in text:
        if character in "()":
            inside = character == "("
            if inside:
                bars.append("")
        elif inside:
            bars[-1] += character
        else:
            bars.append(character)
    events = [[side * (k in bar) for bar in bars] for k in KINDS]
    strengths = [np.full(len(bars), strength)] * 3
    return detect(*events, *strengths, np.zeros(len(bars)) if session is None else session, params)


def test_params_mirror_the_file():
    text = Path(__file__).parents[1].joinpath("params.yaml").read_text()
    assert Gate1Params.model_validate(yaml.safe_load(text)["gate1"]).window == 30


@pytest.mark.parametrize("side", [1, -1])
@pytest.mark.parametrize("order", ["".join(p) for p in permutations(KINDS)])
def test_four_types_two_directions(order, side):
    out = run(f"{order[0]}..{order[1]}.{order[2]}..", side=side)
    kind = TYPES.get(order, 0)
    assert out.type.tolist() == [0, 0, 0, 0, 0, kind, 0, 0]
    assert out.direction.tolist() == [0, 0, 0, 0, 0, side if kind else 0, 0, 0]
    assert out.bars_to_complete[5] == (6 if kind else 0)


@pytest.mark.parametrize(("gap", "found"), [(10, True), (11, False)])
def test_window(gap, found):
    out = run("mn" + "." * (gap - 2) + "f")
    assert (out.type[-1] == 1) == found
    assert out.bars_to_complete[-1] == (11 if found else 0)


@pytest.mark.parametrize(("gap", "found"), [(4, False), (5, True)])
def test_cooldown(gap, found):
    out = run("(mnf)" + "." * (gap - 1) + "(mnf)" + "....f")
    assert (out.type[gap] == 1) == found
    assert not out.type[gap + 1 :].any()  # the dropped completion has cleared its tracker
    assert out.stage[gap].tolist() == [0, 0]


def test_cooldown_is_of_both_directions():
    zero = np.zeros(3)
    event = np.array([1, -1, 0])
    out = detect(event, event, event, zero, zero, zero, zero, PRD)
    assert out.type.tolist() == [1, 0, 0]


def test_quality_and_strengths():
    m, n, f = np.array([0.9, 0, 0]), np.array([0, 0.6, 0]), np.array([0, 0, 0.3])
    out = detect([1, 0, 0], [0, 1, 0], [0, 0, 1], m, n, f, np.zeros(3), PRD)
    assert out.quality[2] == pytest.approx(0.6 * 0.6 + 0.3 * (1 - 3 / 10) + 0.1)
    assert (out.strength_mlmi[2], out.strength_nwrqk[2], out.strength_fvg[2]) == (0.9, 0.6, 0.3)
    assert out.quality[:2].tolist() == [0, 0]
    unknown = detect([1, 0, 0], [0, 1, 0], [0, 0, 1], m, n * np.nan, f, np.zeros(3), PRD)
    assert unknown.quality[2] == pytest.approx(0.6 * 0.4 + 0.3 * 0.7 + 0.1)
    assert run("(mnf)", strength=1.0).quality[0] == pytest.approx(0.6 + 0.27 + 0.1)


def test_ties():
    out = run("(fnm)")  # the order inside a bar is MLMI, NW-RQK, FVG, however written
    assert (out.type[0], out.bars_to_complete[0], out.has_tie[0]) == (1, 1, True)
    assert run("m(fn)").type[1] == 1
    assert run("m(fn)").has_tie[1]
    assert run("(mf)n").type[1] == 2
    assert run("(mf)n").has_tie[1]
    assert not run("mnf").has_tie.any()


def test_state_after_each_bar():
    out = run("f.m.mf.m.n.")
    assert out.stage[:, 0].tolist() == [0, 0, 1, 1, 1, 2, 2, 2, 2, 0, 0]
    assert out.first_kind[:, 0].tolist() == [0, 0, 1, 1, 1, 1, 1, 1, 1, 0, 0]
    assert out.second_kind[:, 0].tolist() == [0, 0, 0, 0, 0, 3, 3, 3, 3, 0, 0]
    assert out.age[:, 0].tolist() == [-1, -1, 0, 1, 2, 3, 4, 5, 6, -1, -1]
    assert not out.stage[:, 1].any()
    assert (out.age[:, 1] == -1).all()
    assert out.type[9] == 2


def test_opposite_signals_have_their_own_tracker():
    m, n, f = [1, 0, 0, 0, 0, 0], [0, -1, 1, 0, 0, 0], [0, 0, 0, -1, 1, 0]
    half = np.full(6, 0.5)
    out = detect(m, n, f, half, half, half, np.zeros(6), PRD)
    assert out.type.tolist() == [0, 0, 0, 0, 1, 0]
    assert out.stage.tolist() == [[1, 0], [1, 1], [2, 1], [2, 2], [0, 2], [0, 2]]
    assert out.second_kind[3].tolist() == [2, 3]


def test_only_the_oldest_expires():
    # m at 0 is too old at 11; the repeated m at 5 and the f at 7 live on, and n completes them.
    out = run("m....m.f...n")
    assert out.type[-1] == 2
    assert out.bars_to_complete[-1] == 7
    # Left first by the expiry, an FVG starts nothing.
    out = run("m......f...n")
    assert not out.type.any()
    assert out.first_kind[-1].tolist() == [2, 0]


def test_nothing_crosses_a_session():
    assert run("mnf", session=[0, 0, 0]).type[2] == 1
    out = run("mnf", session=[0, 0, 1])
    assert not out.type.any()
    assert out.stage[2].tolist() == [0, 0]
    assert run("(mnf)(mnf)", session=[0, 0]).type.tolist() == [1, 0]
    assert run("(mnf)(mnf)", session=[0, 1]).type.tolist() == [1, 1]


def valid_triple_ends_here(signals, window):
    """Does the last of the signals (bar, kind) end any valid ordered triple? By trying all of them."""
    t, last = signals[-1]
    return any(
        a + b + last in TYPES and t - bar_a <= window
        for i, (bar_a, a) in enumerate(signals[:-1])
        for (_, b) in signals[i + 1 : -1]
    )


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("window", "rate"), [(10, 0.05), (10, 0.3), (30, 0.1)])
def test_no_false_negative_and_no_false_positive(seed, window, rate):
    """A synergy completes exactly where a signal ends some valid triple of unused signals: all are tried."""
    rng = np.random.default_rng(seed)
    n = 1500
    params = PRD.model_copy(update={"window": window})
    events = [rng.choice([-1, 0, 1], n, p=[rate / 2, 1 - rate, rate / 2]) for _ in KINDS]
    session = np.arange(n) // 78
    out = detect(*events, *[rng.random(n) for _ in KINDS], session, params)
    expected = np.zeros(n, dtype=int)
    unused = {1: [], -1: []}
    emitted = -1000
    for t in range(n):
        if t and session[t] != session[t - 1]:
            unused, emitted = {1: [], -1: []}, -1000
        for kind, event in zip(KINDS, events, strict=True):
            if event[t] == 0:
                continue
            signals = unused[event[t]]
            signals.append((t, kind))
            if valid_triple_ends_here(signals, window):
                if t - emitted >= params.cooldown:
                    expected[t], emitted = event[t], t
                unused[event[t]] = []
    np.testing.assert_array_equal(out.direction, expected)
    np.testing.assert_array_equal(out.type > 0, expected != 0)
    assert expected.any()
    assert out.bars_to_complete.max() <= window + 1


def test_every_sequence_of_six_bars():
    """The same claim over every sequence of signals of one direction, one or none a bar."""
    params = PRD.model_copy(update={"window": 3, "cooldown": 1})
    for text in product("mnf.", repeat=6):
        unused, expected = [], []
        for t, kind in enumerate(text):
            done = False
            if kind != ".":
                unused.append((t, kind))
                done = valid_triple_ends_here(unused, params.window)
                unused = [] if done else unused
            expected.append(done)
        assert (run("".join(text), params).type > 0).tolist() == expected, text


def test_prefix():
    rng = np.random.default_rng(9)
    n = 2000
    events = [rng.choice([-1, 0, 1], n, p=[0.05, 0.9, 0.05]) for _ in KINDS]
    strengths = [rng.random(n) for _ in KINDS]
    columns = (*events, *strengths, np.arange(n) // 78)
    whole = detect(*columns, PRD)
    for cut in (0, 1, 2, 77, 78, 79, *rng.integers(3, n, 20)):
        for got, expected in zip(detect(*[x[:cut] for x in columns], PRD), whole, strict=True):
            np.testing.assert_array_equal(got, expected[:cut])
            assert got.dtype == expected.dtype


def test_wrong_input():
    one = np.ones(2)
    with pytest.raises(InputError, match=r"gate1: events of row 1 are \[2.0, 1.0, 1.0\]"):
        detect([1, 2], one, one, one, one, one, one, PRD)
    with pytest.raises(InputError, match="fvg_event has shape"):
        detect(one, one, np.ones(3), one, one, one, one, PRD)
