import copy
import json
import math
import os

import numpy as np
import pytest
import torch
from savers import RUNTIME, Hook
from torch import nn

from algospace import gradient, training
from algospace.errors import InputError
from algospace.pipeline import training_state

PARAMS = training.OptimizerParams(
    batch_size=8,
    learning_rate=0.01,
    weight_decay=0.01,
    max_grad_norm=1.0,
    epochs=6,
    samples_per_epoch=30,
    patience=20,
    min_delta=0.0,
)


pytestmark = pytest.mark.usefixtures("one_thread")


class Watch(Hook):
    """Keeps the epochs and the last state too."""

    def __init__(self, on_step=lambda step, snapshot: None, resumed=None):
        super().__init__(on_step, resumed)
        self.epochs, self.last = [], None

    def epoch_ended(self, epoch):
        self.epochs.append(epoch)

    def ended(self, step, snapshot):
        self.last = copy.deepcopy(snapshot())


class Task:
    """A small regression with dropout and noise, so that every step takes random numbers of all kinds."""

    def __init__(self, seed=0, params=PARAMS, dropout=0.3, runtime=RUNTIME, accumulation=1):
        torch.manual_seed(seed)
        self.seed = seed
        self.model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 1))
        data = torch.Generator().manual_seed(99)
        self.x = torch.randn(60, 4, generator=data)
        self.y = self.x[:, :1] * 2 - self.x[:, 1:2]
        self.params, self.runtime, self.accumulation = params, runtime, accumulation
        self.seen = []

    def loss(self, chosen, noise, epoch):
        self.seen.append((epoch, chosen.tolist()))
        return ((self.model(self.x[chosen]) - self.y[chosen] + 0.1 * noise) ** 2).mean()

    def validate(self):
        return {"loss": ((self.model(self.x[30:]) - self.y[30:]) ** 2).mean().item(), "extra": 7.0}

    def fit(self, on_step=lambda step, snapshot: None, resumed=None, validate=validate, loss=None, saver=None):
        return training.fit(
            "test",
            self.model,
            lambda generator: torch.randperm(30, generator=generator)[: self.params.samples_per_epoch],
            loss or self.loss,
            self.validate if validate is Task.validate else validate,
            self.params,
            self.runtime,
            self.seed,
            saver or Watch(on_step, resumed),
            accumulation=self.accumulation,
            noise=1,
        )


class Other(Task):
    """The same task in another process: with other weights, until a state is loaded."""

    def __init__(self, **changes):
        super().__init__(**changes)
        torch.manual_seed(77)
        self.model.apply(lambda module: module.reset_parameters() if isinstance(module, nn.Linear) else None)


def same_weights(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_it_learns():
    params = PARAMS.model_copy(update={"epochs": 60})
    task = Task(params=params)
    before = task.validate()["loss"]
    found = task.fit()
    assert task.validate()["loss"] < before / 4
    assert len(found.history) == 60
    assert found.history[0].keys() == {"train/loss", "validation/loss", "validation/extra"}


def test_same_seed_same_bytes():
    first = Task()
    one = first.fit()
    second = Task()
    assert second.fit() == one
    assert Task(seed=1).fit() != one
    assert same_weights(first.model, second.model)


def test_every_sample_of_an_epoch_is_used_once_in_batches():
    task = Task()
    task.fit()
    for epoch in range(6):
        batches = [chosen for e, chosen in task.seen if e == epoch]
        assert [len(b) for b in batches] == [8, 8, 8, 6]
        assert sorted(i for batch in batches for i in batch) == list(range(30))
    assert len({str(chosen) for _, chosen in task.seen}) == 24  # every epoch in another order


def test_every_optimiser_step_is_reported():
    steps = []
    Task().fit(on_step=lambda step, snapshot: steps.append(step))
    assert steps == list(range(1, 25))


@pytest.mark.parametrize("at", [1, 2, 4, 5, 11, 12, 13, 23, 24])
def test_a_resumed_run_ends_with_the_same_bytes(at):
    straight = Task()
    found = straight.fit()

    states = {}

    def keep(step, snapshot):
        if step == at:
            states[step] = copy.deepcopy(snapshot())

    Task().fit(on_step=keep)
    other = Other()
    torch.manual_seed(999)  # another process: another random state
    after = []
    again = other.fit(on_step=lambda step, snapshot: after.append(step), resumed=states[at])
    assert again == found
    assert same_weights(other.model, straight.model)
    assert after == list(range(at + 1, 25))


@pytest.mark.parametrize("at", [2, 6, 13])
def test_a_state_survives_the_saver(tmp_path, monkeypatch, at):
    # The first epoch included: an epoch of the profile `full` is longer than the time between two saves.
    monkeypatch.setattr(training_state, "SAVE_EVERY", 1)
    straight = Task()
    found = straight.fit()
    saver = training_state.TrainingState(tmp_path)
    Task().fit(on_step=lambda step, snapshot: saver(step, snapshot) if step == at else None)
    other = Other()
    assert other.fit(resumed=training_state.TrainingState(tmp_path).resumed) == found
    assert same_weights(other.model, straight.model)


class Killed(BaseException):
    """What no handler of errors sees, as none sees a SIGKILL."""


@pytest.mark.parametrize("at", range(12))
def test_killed_inside_a_save_it_resumes_with_the_same_bytes(tmp_path, monkeypatch, at):
    """Die at the at-th file operation of the savings: a whole state is left, or none, and the end is the same."""
    monkeypatch.setattr(training_state, "SAVE_EVERY", 1)
    straight = Task()
    found = straight.fit()
    calls = iter(range(at, -1, -1))

    def dying(operation):
        def call(*arguments, **keywords):
            if next(calls) == 0:
                raise Killed
            return operation(*arguments, **keywords)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", dying(os.replace))
        patch.setattr(os, "fsync", dying(os.fsync))
        with pytest.raises(Killed):
            Task().fit(saver=training_state.TrainingState(tmp_path))
    resumed = training_state.TrainingState(tmp_path).resumed
    other = Other() if resumed else Task()
    assert (resumed is None) == (at < 2)  # the first save ends with its second operation
    assert other.fit(resumed=resumed) == found
    assert same_weights(other.model, straight.model)


def test_a_run_may_be_resumed_twice():
    straight = Task()
    found = straight.fit()
    states = []

    def keep(step, snapshot):
        if step % 7 == 0:
            states.append(copy.deepcopy(snapshot()))

    Task().fit(on_step=keep)
    first_half, states = states[0], []
    Other().fit(on_step=keep, resumed=first_half)
    last = Other()
    assert last.fit(resumed=states[0]) == found
    assert same_weights(last.model, straight.model)


def test_taking_a_snapshot_changes_nothing():
    plain = Task()
    first = plain.fit()
    watched = Task()
    assert watched.fit(on_step=lambda step, snapshot: snapshot()) == first
    assert same_weights(plain.model, watched.model)


def scripted(task, losses):
    """Validation losses from a script; the weights at each validation are kept."""
    kept = []

    def validate():
        kept.append(training.weights(task.model))
        return {"loss": losses[len(kept) - 1]}

    return validate, kept


@pytest.mark.parametrize(
    ("losses", "patience", "min_delta", "epochs", "best"),
    [
        ([3, 2, 1, 5, 5, 5, 5, 5], 2, 0.0, 5, 2),
        ([3, 2, 1, 5, 0.5, 5, 5, 5], 2, 0.0, 7, 4),
        ([1, 5, 5, 5, 5, 5, 5, 5], 3, 0.0, 4, 0),
        ([5, 4, 3, 2, 1, 0, -1, -2], 1, 0.0, 8, 7),
        ([5, 4.95, 4.91, 4.85, 4.8, 1, 1, 1], 3, 0.1, 8, 5),  # 4.85 is the first to beat 5 by more than 0.1
        ([5, 4.95, 4.91, 4.95, 4.8, 1, 1, 1], 2, 0.1, 3, 0),
    ],
)
def test_early_stopping_keeps_the_best_weights(losses, patience, min_delta, epochs, best):
    update = {"epochs": 8, "patience": patience, "min_delta": min_delta}
    task = Task(params=PARAMS.model_copy(update=update))
    validate, kept = scripted(task, losses)
    found = task.fit(validate=validate)
    assert len(found.history) == epochs
    assert found.best_epoch == best
    assert all(torch.equal(value, kept[best][name]) for name, value in task.model.state_dict().items())
    assert not task.model.training


def test_validation_runs_in_evaluation_mode_without_gradients():
    task = Task()
    modes = []

    def validate():
        modes.append((task.model.training, torch.is_grad_enabled()))
        return {"loss": 1.0}

    def loss(chosen, noise, epoch):
        assert task.model.training
        return task.loss(chosen, noise, epoch)

    task.fit(validate=validate, loss=loss)
    assert set(modes) == {(False, False)}


def test_cosine_schedule():
    rates = []

    def keep(step, snapshot):
        rates.append(snapshot()["optimizer"]["param_groups"][0]["lr"])

    Task().fit(on_step=keep)
    expected = [0.01 * (1 + math.cos(math.pi * k / 24)) / 2 for k in range(1, 25)]
    assert rates == pytest.approx(expected, abs=1e-9)


def test_gradients_are_clipped():
    task = Task(params=PARAMS.model_copy(update={"max_grad_norm": 1e-3, "epochs": 1, "weight_decay": 0.0}))
    norms = []

    def keep(step, snapshot):
        norms.append(math.sqrt(sum(float((p.grad**2).sum()) for p in task.model.parameters())))

    task.fit(on_step=keep)
    assert norms == pytest.approx([1e-3] * len(norms), rel=1e-3)


def test_history_holds_the_mean_of_the_batch_losses():
    task = Task()
    values = []

    def loss(chosen, noise, epoch):
        value = task.loss(chosen, noise, epoch)
        values.append(value.item())
        return value

    found = task.fit(loss=loss)
    assert [row["train/loss"] for row in found.history] == [np.mean(values[i : i + 4]) for i in range(0, 24, 4)]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_refused(bad):
    task = Task()

    def loss(chosen, noise, epoch):
        return task.loss(chosen, noise, epoch) * (bad if epoch == 1 else 1.0)

    with pytest.raises(InputError, match=r"test: expected a finite loss, found (nan|inf) at step 4"):
        task.fit(loss=loss)


def test_a_validation_loss_that_is_not_finite_is_refused():
    # Otherwise no epoch would ever be the best one and the initial weights would be handed out as trained.
    task = Task()
    with pytest.raises(InputError, match="test: expected a finite"):
        task.fit(validate=lambda: {"loss": math.nan})


def test_weights_are_a_copy():
    model = nn.Linear(2, 2)
    kept = training.weights(model)
    with torch.no_grad():
        model.weight.zero_()
    assert kept["weight"].abs().sum() > 0
    assert not kept["weight"].requires_grad


# Parts of a batch


def whole(**changes):
    """Fit without dropout: final weights as one vector."""
    task = Task(dropout=0.0, **changes)
    task.fit()
    return nn.utils.parameters_to_vector(task.model.parameters())


@pytest.mark.parametrize("parts", [2, 3, 8])
def test_a_batch_in_parts_means_the_same(parts):
    # The last batch of an epoch has 6 samples: in 3 parts it is even, in 8 two of them are empty.
    torch.testing.assert_close(whole(accumulation=parts), whole(), rtol=0, atol=1e-6)


def crowded(task, most):
    """The loss of a device that holds so many samples."""

    def loss(chosen, noise, epoch):
        if len(chosen) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return task.loss(chosen, noise, epoch)

    return loss


def test_out_of_memory_goes_on_in_parts_with_the_same_batches(capsys):
    configured = Task(accumulation=4)
    expected = configured.fit()
    task = Task()
    assert task.fit(loss=crowded(task, 2)) == expected
    assert same_weights(task.model, configured.model)
    assert [line for line in capsys.readouterr().err.splitlines() if "memory" in line] == [
        "test: out of memory, going on with 2 parts of a batch",
        "test: out of memory, going on with 4 parts of a batch",
    ]


def test_memory_that_numpy_lacks_is_memory_too(capsys):
    def compute(parts):
        if parts < 4:
            raise MemoryError
        return "done"

    assert gradient.as_memory_allows("test", compute, 1, 8, 8) == ("done", 4)
    assert capsys.readouterr().err.count("out of memory, going on") == 2


def test_parts_done_before_memory_ran_out_do_not_count_twice():
    task, calls = Task(accumulation=2), []

    def loss(chosen, noise, epoch):
        calls.append(chosen)
        if len(calls) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return task.loss(chosen, noise, epoch)

    configured = Task(accumulation=4)
    assert task.fit(loss=loss) == configured.fit()
    assert same_weights(task.model, configured.model)


def test_every_step_has_noise_and_masks_of_its_own():
    task, noises, masks = Task(), [], []
    task.model[2].register_forward_hook(lambda module, inputs, output: masks.append(output[0] / inputs[0][0]))

    def loss(chosen, noise, epoch):
        noises.append(noise[:6].flatten().tolist())
        value = task.loss(chosen, noise, epoch)
        masks[-1] = str(masks[-1].tolist()) + str(torch.randn(1).item())
        return value

    task.fit(loss=loss, validate=None)
    assert len({str(noise) for noise in noises}) == 24
    assert len(set(masks)) == 24


def test_the_parts_survive_in_the_state(capsys):
    straight = Task()
    found = straight.fit(loss=crowded(straight, 2))
    states = {}
    first = Task()
    first.fit(lambda step, snapshot: states.update({step: copy.deepcopy(snapshot())}), loss=crowded(first, 2))
    capsys.readouterr()
    other = Other()
    assert other.fit(resumed=states[7], loss=crowded(other, 2)) == found
    assert same_weights(other.model, straight.model)
    assert "memory" not in capsys.readouterr().err


def test_memory_for_no_sample_is_refused():
    task = Task()
    with pytest.raises(InputError, match="test: out of memory with 8 parts of a batch of 8"):
        task.fit(loss=crowded(task, 0))


def test_what_cannot_be_cut_is_refused_when_memory_runs_out():
    task = Task(accumulation=None)
    with pytest.raises(InputError, match="test: out of memory with 1 parts of a batch of 8"):
        task.fit(loss=crowded(task, 4))


def test_the_memory_of_the_cpu_counts_too():
    task = Task()

    def loss(chosen, noise, epoch):
        if len(chosen) > 4:
            torch.empty(2**60)
        return task.loss(chosen, noise, epoch)

    assert task.fit(loss=loss) == Task(accumulation=2).fit()


def test_another_error_is_none_of_memory():
    def loss(chosen, noise, epoch):
        raise RuntimeError("other")

    with pytest.raises(RuntimeError, match="other"):
        Task().fit(loss=loss)


def test_more_parts_than_samples_are_refused():
    content = PARAMS.model_dump() | {"accumulation": 9}
    with pytest.raises(ValueError, match=r"expected at most batch_size \(8\), found 9"):
        training.AccumulatingParams(**content)


# Precision and memory


def test_bfloat16_trains_and_resumes_with_the_same_bytes():
    runtime = RUNTIME.model_copy(update={"precision": "bfloat16"})
    params = PARAMS.model_copy(update={"epochs": 60})
    task, kinds, states = Task(params=params, runtime=runtime), set(), {}
    task.model[0].register_forward_hook(lambda module, inputs, output: kinds.add(output.dtype))
    before = task.validate()["loss"]
    kinds.clear()

    def keep(step, snapshot):
        if step == 100:
            states[step] = copy.deepcopy(snapshot())

    found = task.fit(keep)
    assert task.validate()["loss"] < before / 4
    assert kinds == {torch.bfloat16, torch.float32}  # validation is float32
    assert all(parameter.dtype == torch.float32 for parameter in task.model.parameters())
    other = Other(params=params, runtime=runtime)
    assert other.fit(resumed=states[100]) == found
    assert found != Task(params=params).fit()


def test_clearing_memory_changes_nothing(monkeypatch):
    cleared = []
    monkeypatch.setattr(training, "free_memory", lambda: cleared.append(1))
    plain = Task()
    found = plain.fit()
    assert not cleared
    tidy = Task(runtime=RUNTIME.model_copy(update={"clear_memory_interval": 5}))
    assert tidy.fit() == found
    assert len(cleared) == 24 // 5
    monkeypatch.undo()
    tidy = Task(runtime=RUNTIME.model_copy(update={"clear_memory_interval": 1}))
    assert tidy.fit() == found
    assert same_weights(tidy.model, plain.model)


# Several trainings in one stage


def test_without_validation_the_last_weights_are_kept():
    task, kept = Task(params=PARAMS.model_copy(update={"patience": 1})), []
    found = task.fit(lambda step, snapshot: kept.append(training.weights(task.model)), validate=None)
    assert found.best_epoch == 5
    assert [row.keys() for row in found.history] == [{"train/loss"}] * 6
    assert all(torch.equal(value, kept[-1][name]) for name, value in task.model.state_dict().items())
    assert not task.model.training


def test_nothing_that_was_drawn_before_matters():
    plain, later = Task(), Task()
    found = plain.fit()
    torch.manual_seed(31)
    torch.randn(5)
    assert later.fit() == found


def folds(saver, upto=None):
    """Two trainings of one stage; the second dies at a step."""
    results = []
    for number in (1, 2):
        part = saver.part(f"fold_{number}")
        task = Task(seed=number)
        started = []

        def loss(chosen, noise, epoch, task=task, started=started, number=number):
            started.append(epoch)
            if number == 2 and len(started) == upto:
                raise Killed
            return task.loss(chosen, noise, epoch)

        results.append((task.fit(saver=part, loss=loss), task.model, len(started)))
    return results


def test_a_finished_part_is_not_trained_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(training_state, "SAVE_EVERY", 10)
    straight = folds(training_state.TrainingState(None))
    with pytest.raises(Killed):
        folds(training_state.TrainingState(tmp_path / "state", "walk"), upto=15)
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == ["fold_1", "fold_2"]
    again = folds(training_state.TrainingState(tmp_path / "state", "walk"))
    assert [steps for *_, steps in again] == [0, 14]
    for (found, model, _), (expected, reference, _) in zip(again, straight, strict=True):
        assert found == expected
        assert same_weights(model, reference)


def test_memory_is_logged_for_every_epoch_and_part(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Task().fit(saver=training_state.TrainingState(None, "walk").part("fold_1"))
    lines = [json.loads(line) for line in (tmp_path / "logs/walk.jsonl").read_text().splitlines()]
    assert [(line["part"], line["epoch"]) for line in lines] == [("fold_1", epoch) for epoch in range(6)]
    assert all(line["memory_mib"] > 10 for line in lines)
