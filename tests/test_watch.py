"""`Watch` logs what is asked for, changes nothing, and tells what is lost."""

from __future__ import annotations

import pickle
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations as torchs

import holdfast
from holdfast import errors, maps
from holdfast.reporting import training
from support import Drifts


class Log:
    """Keeps what is logged."""

    def __init__(self):
        self.figures: dict[tuple[str, int], float] = {}

    def __call__(self, name, value, step):
        assert type(value) is float
        assert (name, step) not in self.figures
        self.figures[name, step] = value

    def steps(self, prefix):
        return sorted({step for name, step in self.figures if name.startswith(prefix)})


def model_of():
    torch.manual_seed(0)
    return nn.Sequential(
        holdfast.orthogonal(nn.Linear(4, 4)),
        nn.Tanh(),
        holdfast.spd(nn.Linear(4, 4)),
        nn.Dropout(0.5),
        holdfast.spectral_norm(nn.Linear(4, 4)),
        torchs.weight_norm(nn.Linear(4, 2)),
    )


def drifting():
    layer = nn.Linear(4, 4)
    nn.init.orthogonal_(layer.weight)
    return nn.Sequential(holdfast.register_parametrization(layer, "weight", Drifts()))


def train(model, steps, watch=None, lr=0.05):
    torch.manual_seed(1)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    losses = []
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        loss = model(torch.randn(8, 4)).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if watch is not None:
            watch.after_step(step)
    return losses


def spoil(model, value=2.0):
    """Spoil the base of the first layer, which makes its weight wrong."""
    with torch.no_grad():
        model[0].parametrizations.weight[0].base.mul_(value)


# ---- What is logged ------------------------------------------------------------------


def test_residuals_and_spectra_come_when_they_are_due():
    log, model = Log(), model_of()
    train(model, 10, holdfast.Watch(model, log, every=2, spectra_every=5))
    assert log.steps("residual/") == [1, 2, 4, 6, 8, 10]
    for prefix in ("largest_singular_value/", "smallest_singular_value/", "condition/"):
        assert log.steps(prefix) == [1, 5, 10]
    names = {name for name, _ in log.figures}
    assert "residual/0.weight" in names
    assert "residual/4.weight" not in names, "an estimate is not judged"
    assert "condition/5.weight" in names, "torch's has a spectrum, and no set"


def test_the_figures_are_those_of_the_weights():
    log, model = Log(), model_of()
    holdfast.Watch(model, log).after_step(7)
    sigma = torch.linalg.svdvals(model[2].weight.detach().double())
    for name, value in (
        ("largest_singular_value", sigma[0]),
        ("smallest_singular_value", sigma[-1]),
        ("condition", sigma[0] / sigma[-1]),
    ):
        assert log.figures[f"{name}/2.weight", 7] == pytest.approx(value.item())
    expected = holdfast.residuals(model)["2.weight"].value
    assert log.figures["residual/2.weight", 7] == expected


def test_a_batch_has_one_figure_the_worst_of_its_matrices():
    module = nn.Module()
    module.weight = nn.Parameter(
        torch.stack([torch.eye(2), torch.tensor([4.0, 1]).diag()])
    )
    holdfast.register_parametrization(module, "weight", maps.Symmetric())
    log = Log()
    holdfast.Watch(module, log).after_step(0)
    assert log.figures["condition/weight", 0] == pytest.approx(4, rel=1e-5)


def test_chosen_tensors_alone_are_looked_at():
    log, model = Log(), model_of()
    holdfast.Watch(model, log, tensors=["2.*", "5.weight"]).after_step(1)
    assert {name.partition("/")[2] for name, _ in log.figures} == {
        "2.weight",
        "5.weight",
    }
    with pytest.raises(errors.UnknownTensorError, match=r"`2.wight`.*`2.weight`"):
        holdfast.Watch(model, log, tensors="2.wight")


def test_repeated_steps_log_once_and_skipped_multiples_are_made_up_for():
    log, model = Log(), model_of()
    watch = holdfast.Watch(model, log, every=10, spectra_every=0)
    for step in (1, 1, 9, 9, 11, 11, 19, 20):
        watch.after_step(step)
    assert log.steps("") == [1, 11, 20]


def test_a_summary_writer_is_a_log(tmp_path):
    tensorboard = pytest.importorskip("torch.utils.tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    model = model_of()
    with tensorboard.SummaryWriter(str(tmp_path)) as writer:
        train(model, 4, holdfast.Watch(model, writer.add_scalar, every=2))
    events = EventAccumulator(str(tmp_path)).Reload()
    scalars = events.Scalars("residual/0.weight")
    assert [event.step for event in scalars] == [1, 2, 4]
    assert all(event.value < 1e-5 for event in scalars)
    assert events.Scalars("condition/0.weight")[0].value == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    "wrong", [{"every": 0}, {"spectra_every": -1}, {"lost": "ignore"}], ids=str
)
def test_wrong_arguments_are_refused(wrong):
    with pytest.raises(ValueError, match=f"`{next(iter(wrong))}`"):
        holdfast.Watch(model_of(), **wrong)


# ---- What is left alone --------------------------------------------------------------


def test_training_is_the_same_bit_for_bit():
    watched, alone = model_of(), model_of()
    watch = holdfast.Watch(watched, Log(), every=1, spectra_every=1, estimates=True)
    assert train(watched, 12, watch) == train(alone, 12)
    for name, tensor in alone.state_dict().items():
        assert torch.equal(watched.state_dict()[name], tensor), name


def test_a_look_that_draws_would_be_seen():  # the control of the test above
    watched = model_of()
    assert train(watched, 12, holdfast.Watch(watched, every=1)) == train(model_of(), 12)

    class Draws(holdfast.Watch):
        def after_step(self, step):
            torch.rand(())

    assert train(model_of(), 12, Draws(model_of())) != train(model_of(), 12)


@pytest.mark.parametrize("inside", [True, False], ids=["inside", "outside"])
def test_many_equal_weights_train_the_same_in_a_scope(inside):
    """They are looked at as one batch, which the scope has too."""

    def losses(watch):
        torch.manual_seed(0)
        layers = [holdfast.orthogonal(nn.Linear(4, 4)) for _ in range(6)]
        model = nn.Sequential(*layers, holdfast.spectral_norm(nn.Linear(4, 4)))
        watch = watch(model, every=1, spectra_every=1).after_step
        optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
        found = []
        for step in range(8):
            with holdfast.cached(model):
                loss = model(torch.ones(2, 4)).square().mean()
                if inside:
                    watch(step)
                loss.backward()
                optimizer.step()
            if not inside:
                watch(step)
            found.append(loss.item())
            optimizer.zero_grad()
        return found, [p.detach().clone() for p in model.parameters()]

    class Blind(holdfast.Watch):
        def after_step(self, step):
            pass

    watched, seen = losses(holdfast.Watch)
    alone, unseen = losses(Blind)
    assert watched == alone
    assert all(map(torch.equal, seen, unseen))


def test_an_old_hook_is_computed_and_not_what_it_left_behind():
    layer = nn.utils.spectral_norm(nn.Linear(3, 3))
    layer(torch.ones(1, 3))
    layer.weight_orig.data.fill_(torch.nan)
    assert torch.isfinite(layer.weight).all(), "what the last forward left"
    assert not holdfast.residuals(layer)["weight"].holds


# ---- What is lost --------------------------------------------------------------------


def test_a_map_that_keeps_its_set_never_warns():
    model = model_of()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(model, 30, holdfast.Watch(model, every=1, lost="warn"))
        train(model, 30, holdfast.Watch(model, every=1, lost="stop"))


def test_a_weight_that_leaves_its_set_stops_the_training_and_is_named():
    model, log = drifting(), Log()
    watch = holdfast.Watch(model, log, every=5, lost="stop")
    with pytest.raises(
        errors.ConstraintLostError, match=r"by step 1: `0.weight` has a residual of"
    ):
        train(model, 20, watch)
    assert log.figures["residual/0.weight", 1] > 1e-3, "it was logged before"


def test_a_warning_comes_once_and_again_after_it_has_held():
    model = model_of()
    watch = holdfast.Watch(model, every=1)
    watch.after_step(1)
    spoil(model, 2.0)
    with pytest.warns(UserWarning, match="`0.weight` has a residual of .* above"):
        watch.after_step(2)
    watch.after_step(3)  # warnings are errors
    spoil(model, 0.5)
    watch.after_step(4)
    spoil(model, 2.0)
    with pytest.warns(UserWarning, match="by step 5"):
        watch.after_step(5)


@pytest.mark.parametrize(
    "recipe", ["orthogonal", "spd", "schur_stable", "simplex", "spectral_norm"]
)
def test_a_weight_that_is_not_finite_is_lost(recipe):
    """Some maps refuse to decompose NaN: that is no error of the watch."""
    model = nn.Sequential(nn.ReLU(), getattr(holdfast, recipe)(nn.Linear(4, 4)))
    watch = holdfast.Watch(model, every=1, lost="stop", spectra_every=0)
    watch.after_step(1)
    for parameter in model.parameters():
        parameter.data.fill_(torch.nan)
    with pytest.raises(errors.ConstraintLostError, match="`1.weight` is not finite"):
        watch.after_step(2)


def test_a_map_that_cannot_be_evaluated_is_an_error_of_its_own():
    class Raises(holdfast.Parametrization):
        broken = False

        def forward(self, X):
            if self.broken:
                raise RuntimeError("out of order")
            return X

    layer = holdfast.register_parametrization(nn.Linear(2, 2), "weight", Raises())
    watch = holdfast.Watch(layer)
    layer.parametrizations.weight[0].broken = True
    with pytest.raises(RuntimeError, match="out of order") as caught:
        watch.after_step(1)
    assert "while measuring `weight`" in caught.value.__notes__


def test_many_lost_ones_are_counted():
    model = nn.Sequential(*(holdfast.orthogonal(nn.Linear(3, 3)) for _ in range(5)))
    for layer in model:
        spoil([layer])
    watch = holdfast.Watch(model, lost="stop")
    with pytest.raises(errors.ConstraintLostError, match=r"`2.weight` .*, and 2 more"):
        watch.after_step(1)


def looks_of(monkeypatch, *, step, look, steps, **options):
    """Return the steps at which a watch looks, if a step and a look take that long."""
    now, seen = [0.0], []
    monkeypatch.setattr(training.time, "perf_counter", lambda: now[0])
    layer, found = holdfast.orthogonal(nn.Linear(4, 4)), holdfast.residuals

    def looked(_):
        now[0] += look
        return found(layer)

    monkeypatch.setattr(training.Watch, "_residuals", looked)
    watch = holdfast.Watch(
        layer, lambda *row: seen.append(row[2]), spectra_every=0, **options
    )
    for each in range(1, steps + 1):
        now[0] += step
        watch.after_step(each)
    assert watch.is_due(each + watch.every)
    assert not watch.is_due(each)
    return seen


def test_a_look_is_left_out_until_looking_takes_no_more_than_its_share(monkeypatch):
    times = {"step": 2.0, "look": 1.0, "steps": 30}
    looks = looks_of(monkeypatch, every=1, share=0.1, **times)
    assert looks == [1, 2, 7, 12, 17, 22, 27]
    assert looks_of(monkeypatch, every=4, share=0.1, **times) == [1, 4, 12, 20, 28]
    assert looks_of(monkeypatch, every=4, **times) == [1, 4, 8, 12, 16, 20, 24, 28]


def test_unless_told_otherwise_it_looks_every_50_steps_in_2_percent_of_the_time(
    monkeypatch,
):
    assert looks_of(monkeypatch, step=1.0, look=0.5, steps=200) == [
        1,
        50,
        100,
        150,
        200,
    ]
    assert looks_of(monkeypatch, step=1.0, look=2.5, steps=350) == [1, 50, 200, 350]
    assert looks_of(monkeypatch, step=1.0, look=2.5, steps=150, every=50) == [
        *(1, 50, 100, 150)
    ]


def test_a_clock_that_is_behind_does_not_silence_a_watch(monkeypatch):
    """Clocks begin anywhere: a watch may be unpickled where the time is earlier."""
    now, seen = [1e6], []
    monkeypatch.setattr(training.time, "perf_counter", lambda: now[0])
    watch = holdfast.Watch(holdfast.orthogonal(nn.Linear(4, 4)), spectra_every=0)
    watch.after_step(1)
    watch = pickle.loads(pickle.dumps(watch))
    watch.log = lambda *row: seen.append(row[2])
    for now[0], step in ((10.0, 50), (60.0, 100)):
        watch.after_step(step)
    assert seen == [50, 100]


@pytest.mark.parametrize("share", [0, 1.5, -0.1, float("nan")])
def test_a_share_is_one_of_the_time(share):
    with pytest.raises(ValueError, match="`share` to be in"):
        holdfast.Watch(holdfast.orthogonal(nn.Linear(4, 4)), share=share)
