from types import SimpleNamespace

import numpy as np
import pytest
import torch

from algospace.agents import FIRST_LOGIT
from algospace.data.contracts import CONTRACTS
from algospace.errors import InputError
from algospace.forecast import PENALTY
from algospace.marl import engine
from algospace.marl.exams import Judged
from algospace.mrms.proposal import PROPOSAL_CODE
from algospace.params import RuntimeParams
from algospace.training import Unsaved

RUNTIME = RuntimeParams(threads=1, device="cpu", precision="float32", clear_memory_interval=0)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def rules(settings):
    """The settings, with an embargo that a small market can bear."""
    data = settings.data.model_copy(update={"embargo_m30_bars": 2, "embargo_m5_bars": 3})
    return settings._replace(data=data, contract=CONTRACTS["MES"])


def part(name):
    return Unsaved()


def run(made, params, rules, seed=0, **update):
    given = {"select": made(20, 1), "report": made(20, 2)}
    return engine.run(made(80), given["select"], given, params(**update), rules, RUNTIME, seed, part, "seed_0")


def test_a_run_is_a_function_of_its_seed(made, params, rules):
    first, again, other = (run(made, params, rules, seed) for seed in (0, 0, 1))
    assert first.history == again.history
    assert first.history != other.history
    assert all(torch.equal(a, b) for a, b in zip(first.team.parameters(), again.team.parameters(), strict=True))
    for half in ("select", "report"):
        assert np.array_equal(first.judged[half].confidence, again.judged[half].confidence)
        assert len(first.judged[half].action) == 20


def test_a_team_begins_with_what_is_known_without_the_proposals(params):
    """On train the proposals are those of other models, which know less."""
    rng = np.random.default_rng(0)
    context = rng.normal(size=(2000, 3 + PROPOSAL_CODE)).astype(np.float32)
    net_r = (context[:, :1] + context[:, -1:]) * [1.0, -1.0]
    team = engine.new_team(params(), context, net_r, 0)
    weights = team.linear.weight.detach().view(3, 3, -1)[:, 1:]  # agents, sides
    assert (weights[..., 3:] == 0).all()
    shrunk = FIRST_LOGIT * len(context) / (len(context) + PENALTY)
    torch.testing.assert_close(weights[..., 0], torch.tensor([[shrunk, -shrunk]] * 3), atol=0.5, rtol=0)


@pytest.mark.parametrize("names", [("structure",), ("tactical",), ("arbitrageur",), ("structure", "arbitrageur")])
def test_some_agents_alone(made, params, rules, names):
    one = run(made, params, rules, agents=names)
    assert one.team.agents == names
    assert set(one.team.trunks) == set(names)
    assert set(one.pretrained) == set(names) & {"structure", "tactical"}
    assert all(np.isfinite(value) for value in one.history[-1].values())


def test_an_agent_that_is_alone_decides_alone(made, params, rules):
    """Its vote is the action, and no penalty for a split is taken."""
    one = run(made, params, rules, agents=("structure",), seeds=(3,))
    with torch.no_grad():
        one.team.out[0].bias[2] += 9.0  # against the signal
    judged = engine.exams.judge(one.team, made(12, 5), rules)
    assert (judged.action == 2).all()


def of_mean(*means):
    """Runs whose consensus earns these means on select, and the opposite on report."""

    def judged(mean):
        return Judged(
            np.ones(2, int), np.zeros(2, int), np.ones(2), np.array([mean - 1, mean + 1]), np.full(2, 3), np.zeros(2)
        )

    return [SimpleNamespace(judged={"select": judged(m), "report": judged(-m)}) for m in means]


def test_the_best_of_select_is_chosen_and_of_equals_the_first():
    assert engine.choose(of_mean(0.1, 0.3, 0.2)) == 1
    assert engine.choose(of_mean(0.2, 0.2, 0.1)) == 0
    assert engine.choose(of_mean(-0.2, -0.1)) == 1


@pytest.mark.parametrize("half", ["select", "report"])
def test_half_a_validation_without_candidates_is_refused_before_anything_is_trained(made, params, rules, half):
    exam = {"select": made(20, 1), "report": made(20, 2)}
    exam[half] = exam[half].of(np.arange(0))
    with pytest.raises(InputError, match=f"marl: expected candidates in {half}, found 0"):
        engine.study(made(80), exam, params(), rules, RUNTIME, 0, part)


def test_a_study_exports_the_seed_that_it_chose(made, params, rules):
    exam = {"select": made(20, 1), "report": made(20, 2)}
    found = engine.study(made(80), exam, params(seeds=(0, 3)), rules, RUNTIME, 0, part)
    assert len(found.runs) == 2
    assert found.exported == engine.choose(found.runs)
    assert found.run is found.runs[found.exported]
    assert set(found.initial) == set(exam)


# Walk-forward folds


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_folds_cover_the_later_half_between_sessions(made, count):
    lessons = made(200)  # 20 sessions
    blocks = engine.blocks(lessons, count)
    assert np.array_equal(np.concatenate(blocks), np.arange(100, 200))
    for block in blocks:
        inside = lessons.sessions[block]
        others = np.setdiff1d(np.arange(200), block)
        assert not np.isin(lessons.sessions[others], inside).any()


@pytest.mark.parametrize(("embargo", "hold"), [(0, 3), (12, 3), (12, 40)])
def test_what_is_learnt_has_ended_before_the_block_begins(made, embargo, hold):
    lessons = made(200, hold=hold)
    past = engine.before(lessons, 100, embargo)
    start = lessons.candidates.row[100]
    # A bracket entered four bars late at the latest lasts `hold` bars.
    last = lessons.candidates.row[past] + 1 + 4 + hold - 1
    assert (last < start - embargo).all()
    assert past[-1] + 1 == len(past)
    assert lessons.candidates.row[len(past)] + 4 + hold >= start - embargo  # and no candidate more is left out


def test_a_fold_learns_nothing_from_its_block_or_later(made, params, rules):
    """Whatever happens in the block and after it, the team that judges it is the same."""
    lessons = made(200)
    first, _ = engine.walk_forward(lessons, params(folds=2), rules, RUNTIME, 0, part)
    net_r = lessons.candidates.net_r.copy()
    net_r[100:] *= -7.0
    exit_row, context, labels = (
        lessons.candidates.exit_row.copy(),
        lessons.candidates.context.copy(),
        lessons.labels.copy(),
    )
    exit_row[100:] += 9
    context[150:] = 99.0  # behind the first block, which is judged by its own
    labels[100:] = 2 - labels[100:]
    candidates = lessons.candidates._replace(net_r=net_r, exit_row=exit_row, context=context)
    poisoned = lessons._replace(candidates=candidates, labels=labels)
    again, later = engine.walk_forward(poisoned, params(folds=2), rules, RUNTIME, 0, part)
    assert np.array_equal(first.judged.action, again.judged.action)
    assert np.array_equal(first.judged.confidence, again.judged.confidence)
    assert len(later.judged.action) == 50


def test_a_fold_is_judged_where_a_signal_fires(made, params, rules):
    """As the exams are: who learns on every bar is not examined on bars without a signal."""
    lessons = made(200)
    fires = np.arange(200) % 3 == 0
    (fold,) = engine.walk_forward(lessons._replace(signals=fires), params(folds=1), rules, RUNTIME, 0, part)
    assert fold.given.candidates.row.tolist() == lessons.candidates.row[100:][fires[100:]].tolist()
    assert len(fold.judged.action) == fires[100:].sum()


def test_no_folds_by_default(made, params, rules):
    assert engine.walk_forward(made(80), params(), rules, RUNTIME, 0, part) == []


def test_a_past_without_candidates_is_refused(made, params, rules):
    with pytest.raises(InputError, match=r"each of 1 blocks, found \d+ in block 1 and 0 before it"):
        engine.walk_forward(made(20, hold=500), params(folds=1), rules, RUNTIME, 0, part)


def test_more_folds_than_sessions_are_refused(made, params, rules):
    with pytest.raises(
        InputError, match=r"marl.folds: expected at least 2 signals in and candidates before each of 9 blocks"
    ):
        engine.walk_forward(made(20), params(folds=9), rules, RUNTIME, 0, part)
