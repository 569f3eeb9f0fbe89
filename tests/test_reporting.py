"""Reports, traces and discoveries: what they say, and that they change nothing."""

from __future__ import annotations

import io
import json
import math
import random
import re
import sys
import warnings
from importlib import util

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations as torchs
from torch.testing import assert_close

import holdfast
from cases import CASES
from holdfast import Parametrization, maps, sets
from holdfast.errors import InvalidTensorError, UnknownTensorError
from holdfast.reporting import known_sets
from holdfast.reporting.tables import short
from holdfast.testing.case import Host
from support import Sine, bits, evaluations, state_of

LOOKS = {
    "report": holdfast.report,
    "residuals": holdfast.residuals,
    "trace": lambda model: holdfast.trace(model, "0.weight"),
}
looks = pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)


class Claims(Parametrization):
    """A wrong map: what it makes is not in the set that it names."""

    codomain = sets.Stiefel()

    def forward(self, X: Tensor) -> Tensor:
        return X


class Restless(nn.Module):
    """A map that draws random numbers and moves all the state that it has."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))
        self.calls = 0

    def forward(self, X: Tensor) -> Tensor:
        self.calls += 1
        self.seen += 1
        return X + torch.rand_like(X) * self.seen


class Fails(nn.Module):
    """A map that works until it is told not to."""

    broken = False

    def forward(self, X: Tensor) -> Tensor:
        if self.broken:
            raise RuntimeError("out of order")
        return X


def with_maps(layer: nn.Module, *links: nn.Module) -> nn.Sequential:
    for link in links:
        holdfast.register_parametrization(layer, "weight", link)
    return nn.Sequential(layer)


def line(model: nn.Module):
    (found,) = holdfast.report(model).tensors
    return found


def versions(model: nn.Module) -> list[int]:
    return [t._version for t in (*model.parameters(), *model.buffers())]


MODELS = {
    "orthogonal": lambda: with_maps(nn.Linear(4, 4), maps.Orthogonal()),
    "spectral_norm": lambda: nn.Sequential(holdfast.spectral_norm(nn.Linear(4, 3))),
    "restless": lambda: with_maps(nn.Linear(4, 4), Restless()),
    "torch's": lambda: nn.Sequential(torchs.orthogonal(nn.Linear(4, 4))),
    "torch's moving one": lambda: nn.Sequential(torchs.spectral_norm(nn.Linear(4, 4))),
    "old hook": lambda: nn.Sequential(nn.utils.spectral_norm(nn.Linear(4, 4))),
}


# Nothing changes


@looks
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_looking_changes_no_model(make, train, look):
    model = make().train(train)
    before = state_of(model)
    calls = [m.calls for m in model.modules() if isinstance(m, Restless)]
    noise, drawn = torch.get_rng_state(), random.getstate()
    look(model)
    assert torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), noise)
    assert random.getstate() == drawn
    assert state_of(model) == before
    assert [m.calls for m in model.modules() if isinstance(m, Restless)] == calls


@looks
@pytest.mark.parametrize("name", ["orthogonal", "spectral_norm"])
def test_looking_writes_to_no_tensor(name, look):
    model = MODELS[name]()
    before = versions(model)
    look(model)
    assert versions(model) == before


def test_what_moves_on_a_read_is_seen():  # the control of the test above
    model = MODELS["restless"]()
    before = state_of(model)
    _ = model[0].weight
    assert state_of(model) != before


@looks
def test_looking_keeps_and_leaves_no_value(look):
    model = with_maps(nn.Linear(4, 4), maps.Symmetric())
    with torch.no_grad():
        look(model)
        assert "weight (remembered)" not in vars(model[0])
        remembered = model[0].weight
        look(model)
        assert model[0].weight is remembered


@looks
def test_looking_inside_a_scope_leaves_its_values_alone(look):
    model = with_maps(nn.Linear(4, 4), Sine())
    with holdfast.cached():
        value = model[0].weight
        look(model)
        assert model[0].weight is value
    evaluations(model[0])
    with holdfast.cached():
        look(model)
        evaluations(model[0])
        _ = model[0].weight
    assert evaluations(model[0]) == 1


@looks
def test_looking_between_forward_and_backward_spoils_no_gradient(look):
    model = nn.Sequential(torchs.spectral_norm(nn.Linear(4, 4)))
    loss = model(torch.ones(1, 4)).sum()
    look(model)
    loss.backward()
    assert model[0].parametrizations.weight.original.grad is not None


@pytest.mark.parametrize(
    "scope",
    [
        torch.no_grad,
        torch.inference_mode,
        lambda: torch.autocast("cpu", dtype=torch.bfloat16),
        holdfast.cached,
    ],
)
@looks
def test_looking_is_the_same_in_every_scope(scope, look):
    model = with_maps(nn.Linear(4, 4), maps.Orthogonal())
    expected = holdfast.residuals(model)
    with scope():
        look(model)
        assert holdfast.residuals(model) == expected
        assert line(model).residual == pytest.approx(expected["0.weight"].value)


# What a report says


# Those that are excepted from the laws make no promise that a report could find kept.
SURE = [case for case in CASES if not {"image", "registering"} & {*case.exceptions}]


@pytest.mark.parametrize("case", SURE, ids=str)
def test_every_map_of_the_catalogue_holds_in_a_report(case):
    shape, dtype = case.shapes[0], case.dtypes[0]
    host = Host(case.sample(shape, dtype))
    for link in case.make(shape):
        holdfast.register_parametrization(host, "weight", link)
    found = line(host)
    assert found.holds, str(holdfast.report(host))
    assert found.shape == shape
    assert found.free == sum(t.numel() for t in host.parametrizations.parameters())


@pytest.mark.parametrize("look", ["report", "residuals"])
def test_a_map_that_misses_its_set_is_reported(look):
    model = with_maps(nn.Linear(3, 3), Claims())
    assert holdfast.report(model).holds  # registering moved the weight there
    with torch.no_grad():
        model[0].parametrizations.weight.original.mul_(1.001)
    if look == "report":
        found = holdfast.report(model)
        assert not found.holds
        assert [each.tensor for each in found.violations] == ["0.weight"]
        assert "! `0.weight` is not in Stiefel()" in str(found)
        assert "color" in found._repr_html_()
    else:
        (found,) = holdfast.residuals(model).values()
        assert not found.holds


def test_a_base_that_was_spoilt_is_reported():
    model = with_maps(nn.Linear(3, 3), maps.Orthogonal())
    assert holdfast.report(model).holds
    model[0].parametrizations.weight[0].base.data[0, 0] += 1e-3
    assert not holdfast.report(model).holds
    assert not holdfast.residuals(model)["0.weight"].holds
    (original, value) = holdfast.trace(model, "0.weight").steps
    assert original.holds
    assert not value.holds


@pytest.mark.parametrize("link", [maps.Symmetric(), Fails()])
def test_what_is_not_finite_is_reported_whatever_the_set(link):
    model = with_maps(nn.Linear(3, 3), link)
    model[0].parametrizations.weight.original.data[0, 0] = math.nan
    found = holdfast.report(model)
    assert not found.holds
    assert "! `0.weight` is not finite." in str(found)
    assert not holdfast.residuals(model)["0.weight"].holds
    assert json.loads(found.to_json())[0]["residual"] == "nan"


@pytest.mark.parametrize("recipe", ["spd", "hurwitz", "schur_stable"])
def test_a_set_that_decomposes_says_that_a_value_is_not_finite(recipe):
    layer = getattr(holdfast, recipe)(nn.Linear(3, 3))
    for parameter in layer.parameters():
        parameter.data.fill_(math.nan)
    (line,) = holdfast.report(layer).tensors
    assert not line.problem
    assert math.isnan(line.residual)
    assert math.isnan(holdfast.trace(layer, "weight").steps[-1].residual)
    assert holdfast.residuals(layer)["weight"].tolerance == line.tolerance


class Refuses(nn.Module):
    """A map that raises when it is told to."""

    raises = False

    def forward(self, X):
        if self.raises:
            raise ArithmeticError("told to")
        return X


@pytest.mark.parametrize(
    ("link", "value"),
    [
        (maps.Polar, math.nan),
        (maps.RKO, math.nan),
        (Refuses, math.nan),
        (Refuses, math.inf),
    ],
)
def test_a_map_that_fails_on_what_is_not_finite_ends_the_trace(link, value):
    model = nn.Sequential(nn.Linear(3, 3))
    for map_ in (Refuses(), link(), Refuses()):
        holdfast.register_parametrization(model[0], "weight", map_)
    links = model[0].parametrizations.weight
    if isinstance(links[1], Refuses):
        links[1].raises = True
    links.original.data[0, 0] = value
    found = holdfast.trace(model, "0.weight")
    assert [step.holds for step in found] == [False, False, False]
    assert re.match(
        "LinAlgError: linalg|ArithmeticError: told to", found.steps[-1].error
    )
    assert re.search("! `1: .*` met NaN or infinity, and raised .*Error.", str(found))
    assert json.loads(found.to_json())[-1]["error"] == found.steps[-1].error
    assert "met NaN" in found._repr_html_()


def test_control_an_error_on_finite_numbers_is_raised():
    model = with_maps(nn.Linear(3, 3), Refuses())
    model[0].parametrizations.weight[0].raises = True
    with pytest.raises(ArithmeticError, match="told to"):
        holdfast.trace(model, "0.weight")


def test_an_error_of_a_set_is_no_value_that_is_not_finite(monkeypatch):
    def residual(self, weight):
        raise ArithmeticError("no residual")

    monkeypatch.setattr(sets.SymmetricPositiveDefinite, "residual", residual)
    with pytest.raises(ArithmeticError, match="no residual"):
        holdfast.trace(holdfast.spd(nn.Linear(3, 3)), "weight")


def test_a_map_that_raises_is_a_problem_of_its_line():
    model = nn.Sequential(
        *with_maps(nn.Linear(3, 3), Fails()), *with_maps(nn.Linear(2, 2), maps.Skew())
    )
    model[0].parametrizations.weight[0].broken = True
    found = holdfast.report(model)
    assert [each.problem for each in found] == ["out of order", ""]
    assert "`0.weight` cannot be evaluated: out of order" in str(found)
    with pytest.raises(RuntimeError, match="out of order") as caught:
        holdfast.residuals(model)
    assert caught.value.__notes__ == ["while measuring `0.weight`"]


def test_an_estimate_is_shown_and_not_judged():
    model = nn.Sequential(holdfast.spectral_norm(nn.Linear(9, 9)))
    with torch.no_grad():
        model[0].parametrizations.weight.original.copy_(torch.randn(9, 9))
    found = line(model)
    assert found.residual > 1e-3
    assert found.tolerance is None
    assert found.holds
    assert holdfast.residuals(model) == {}
    (estimate,) = holdfast.residuals(model, estimates=True).values()
    assert estimate.value == pytest.approx(found.residual)
    assert estimate.tolerance is None
    exact = with_maps(nn.Linear(9, 9), maps.SpectralNorm(exact=True))
    assert line(exact).residual <= line(exact).tolerance


def test_torchs_own_are_reported_without_a_set():
    model = nn.Sequential(
        torchs.orthogonal(nn.Linear(3, 3)),
        nn.utils.spectral_norm(nn.Linear(4, 3)),
        nn.Linear(3, 3),
    )
    found = holdfast.report(model)
    assert [(t.tensor, t.maps, t.made_by, t.set) for t in found] == [
        ("0.weight", "_Orthogonal()", "torch", ""),
        ("1.weight", "SpectralNorm", "hook", ""),
    ]
    assert found.tensors[0].condition == pytest.approx(1, abs=1e-5)
    assert holdfast.residuals(model) == {}


def test_disabled_maps_are_named_and_promise_nothing():
    model = with_maps(nn.Linear(3, 3), maps.Orthogonal())
    with holdfast.disabled(model[0], "weight", 0):
        found = line(model)
    assert found.maps.endswith(" (disabled)")
    assert (found.set, found.residual) == ("", None)


@pytest.mark.parametrize(
    ("tensor", "link"),
    [
        (torch.randn(3, 3, dtype=torch.complex64), maps.Symmetric()),
        (torch.randn(2, 3, 4, 4), maps.Orthogonal()),
        (torch.randn(5, 3).bfloat16(), maps.ThinOrthogonal()),
        (torch.tensor(2.0), maps.Softplus()),
        (torch.randn(0, 3, 3), maps.Symmetric()),
        (torch.arange(6).reshape(2, 3), nn.Identity()),
        (torch.tensor(3), nn.Identity()),
        (torch.randn(3, 3, device="meta"), maps.Symmetric()),
    ],
    ids=lambda each: str(getattr(each, "dtype", type(each).__name__)),
)
def test_all_kinds_of_tensors_are_reported(tensor, link):
    host = nn.Module()
    host.register_buffer("weight", tensor)
    holdfast.register_parametrization(host, "weight", link)
    found = line(host)
    assert found.holds, found.problem
    assert found.shape == tuple(tensor.shape)
    assert (found.milliseconds is None) == tensor.is_meta
    assert holdfast.residuals(host).keys() <= {"weight"}
    assert len(holdfast.trace(host, "weight")) == 2
    assert str(holdfast.trace(host, "weight"))


def test_a_model_with_nothing_in_it_has_an_empty_report():
    found = holdfast.report(nn.Sequential())
    assert len(found) == 0
    assert found.holds
    assert str(found) == "Nothing is parametrized."
    assert found.to_json() == "[]"
    assert "tensor" in found.to_pandas().columns
    assert holdfast.residuals(nn.Sequential()) == {}


@pytest.mark.parametrize("model", [None, {}, [nn.Linear(2, 2)], torch.ones(2)])
def test_what_is_no_module_is_refused(model):
    for look in (*LOOKS.values(), holdfast.Watch):
        with pytest.raises(TypeError, match=r"Expected a module\. Got an object of"):
            look(model)


def test_what_is_no_tensor_is_refused():
    with pytest.raises(TypeError, match=r"Expected a tensor\. Got an object of list"):
        holdfast.discover([[1.0]])


def test_a_shared_module_is_reported_once_under_its_first_name():
    layer = holdfast.weight_norm(nn.Linear(2, 2))
    found = holdfast.report(nn.ModuleDict({"a": layer, "b": nn.Sequential(layer)}))
    assert [each.tensor for each in found] == ["a.weight"]


def test_the_singular_values_are_those_of_the_weight():
    model = nn.Sequential(
        holdfast.weight_norm(nn.Conv2d(3, 5, 2)),
        holdfast.weight_norm(nn.ConvTranspose2d(3, 5, 2)),
        holdfast.weight_norm(nn.Linear(3, 5)),
    )
    weights = [
        model[0].weight.flatten(1),
        model[1].weight.transpose(0, 1).flatten(1),
        model[2].weight,
    ]
    for found, W in zip(holdfast.report(model), weights, strict=True):
        W = W.detach()
        expected = torch.linalg.svdvals(W)
        assert_close((found.largest, found.smallest), (*expected[[0, -1]].tolist(),))
        assert found.condition == pytest.approx(float(torch.linalg.cond(W)), rel=1e-4)
    assert holdfast.report(model, spectra=False).tensors[0].largest is None


def test_the_singular_values_of_a_kernel_are_those_that_its_set_is_about():
    kernels = {
        maps.Orthogonal(): lambda K: K,  # each matrix of the last two dimensions
        maps.SpectralBound(): lambda K: K,
        maps.SpectralNorm(dim=1): lambda K: K.movedim(1, 0).flatten(1),
        maps.RKO(groups=2): lambda K: K.unflatten(0, (2, 2)).flatten(2),
        maps.Matricized(maps.Orthogonal(), 1): lambda K: K.movedim(1, 0).flatten(1),
        maps.WeightNorm(): lambda K: K.flatten(1),  # its set says nothing
    }
    for map_, matrices in kernels.items():
        layer = nn.Conv2d(6, 4, 3, groups=2)
        holdfast.register_parametrization(layer, "weight", map_)
        sigma = torch.linalg.svdvals(matrices(layer.weight.detach().double()))
        expected = (float(sigma.max()), float(sigma.min()))
        (found,) = holdfast.report(layer)
        assert_close((found.largest, found.smallest), expected)
        last = holdfast.trace(layer, "weight").steps[-1].singular_values
        assert_close((last[0], last[-1]), expected)
        figures = []
        watch = holdfast.Watch(layer, lambda *figure, to=figures: to.append(figure))
        watch.after_step(1)
        logged = {name: value for name, value, _ in figures}
        assert_close(logged["largest_singular_value/weight"], expected[0])


# How it is shown


def test_a_report_prints_with_rich_and_without(monkeypatch):
    found = holdfast.report(with_maps(nn.Linear(3, 4), maps.Orthogonal()))
    pretty = str(found)
    real = util.find_spec
    monkeypatch.setattr(
        "holdfast.reporting.tables.find_spec",
        lambda name: None if name == "rich" else real(name),
    )
    plain = str(found)
    for text in (pretty, plain):
        assert "\x1b" not in text
        for cell in ("tensor", "0.weight", "4 x 3", "Stiefel()", "<="):
            assert cell in text
        assert all(rows == rows.rstrip() for rows in text.splitlines())
    assert len(plain.splitlines()) == 2


@pytest.mark.parametrize("columns", [20, 80, 200])
def test_a_narrow_terminal_breaks_no_figure(columns, monkeypatch):
    model = with_maps(nn.Linear(3, 4), maps.PerBlock(maps.Orthogonal(), 2))
    found = holdfast.report(model)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    text, each = str(found), line(model)
    assert f"{each.residual:.2g} <= {each.tolerance:.2g}" in text
    assert f"{each.smallest:.4g} .. {each.largest:.4g}" in text
    assert max(map(len, text.splitlines())) <= max(130, columns)


class Log:  # as scripts put it in the place of the standard output
    def write(self, text):
        return len(text)


@pytest.mark.parametrize("stream", [None, Log()])
def test_a_report_prints_without_a_terminal_and_without_any_stream(stream, monkeypatch):
    found = holdfast.report(with_maps(nn.Linear(3, 4), maps.Orthogonal()))
    monkeypatch.setattr(sys, "stdout", stream)
    assert "0.weight" in str(found)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_a_report_prints_into_a_stream_without_line_drawings(monkeypatch, encoding):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    stream.write(str(holdfast.report(holdfast.spd(nn.Linear(3, 3)))))
    stream.flush()
    printed = stream.buffer.getvalue().decode(encoding)
    assert "SymmetricPositiveDefinite()" in printed
    assert ("─" in printed) == (encoding == "utf-8")


@pytest.mark.parametrize(
    ("number", "digits", "shown"),
    [
        (123.4, 2, "123"),
        (99.6, 2, "100"),
        (-12345.6, 3, "-12346"),
        (999_999.4, 3, "999999"),
        (1e6, 3, "1e+06"),
        (0.01234, 2, "0.012"),
        (math.inf, 2, "inf"),
        (math.nan, 2, "nan"),
    ],
)
def test_figures_are_short_without_an_exponent_where_they_can(number, digits, shown):
    assert short(number, digits) == shown


def test_markup_and_html_in_names_are_only_text():
    class Odd(Claims):
        def extra_repr(self) -> str:
            return "[red]<b>"

    found = holdfast.report(with_maps(nn.Linear(2, 2), Odd()))
    assert "[red]<b>" in str(found)
    assert "<b>" not in found._repr_html_()


def test_json_and_data_frames_have_the_same_figures():
    model = nn.Sequential(
        *with_maps(nn.Linear(3, 3), maps.Orthogonal()),
        holdfast.weight_norm(nn.Linear(3, 2)),
    )
    found = holdfast.report(model)
    read, frame = json.loads(found.to_json()), found.to_pandas()
    assert [each["tensor"] for each in read] == list(frame["tensor"])
    assert [each["residual"] for each in read] == list(frame["residual"])
    assert read[0]["shape"] == [3, 3]
    assert all(each["holds"] is True for each in read)
    for table in (holdfast.trace(model, "0.weight"), holdfast.discover(torch.eye(2))):
        read, frame = json.loads(table.to_json()), table.to_pandas()
        assert [each["holds"] for each in read] == list(frame["holds"])


def test_without_pandas_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ModuleNotFoundError, match="pip install pandas"):
        holdfast.report(nn.Linear(2, 2)).to_pandas()


# Traces


def test_a_trace_has_what_each_map_makes():
    model = with_maps(nn.Linear(4, 4), maps.Skew(), maps.Cayley())
    chain = model[0].parametrizations.weight
    original, skew, value = holdfast.trace(model, "0.weight").steps
    S = chain[0](chain.original).detach()
    W = model[0].weight.detach()
    assert [original.step, skew.step, value.step] == [
        "original",
        "0: Skew()",
        "1: Cayley()",
    ]
    for step, X in ((original, chain.original.detach()), (skew, S), (value, W)):
        found = (step.min, step.max, step.mean, step.std, step.norm)
        expected = (X.min(), X.max(), X.mean(), X.std(correction=0), X.norm())
        assert_close(found, tuple(map(float, expected)))
        assert_close(torch.tensor(step.singular_values), torch.linalg.svdvals(X))
    assert (original.set, skew.set) == ("", "SkewMatrices()")
    assert value.residual <= value.tolerance
    assert skew.milliseconds > 0
    assert original.milliseconds is None


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")
def test_a_trace_of_torchs_and_of_several_originals():
    model = nn.Sequential(
        torchs.weight_norm(nn.Linear(3, 2)), nn.utils.weight_norm(nn.Linear(3, 2))
    )
    for path in ("0.weight", "1.weight"):
        first, second, value = holdfast.trace(model, path).steps
        assert [first.step, second.step] == ["original0", "original1"]
        W = model[int(path[0])].weight.detach()
        assert value.norm == pytest.approx(float(W.norm()))


@pytest.mark.parametrize("name", ["weight", "0.bias", "0.weigth"])
def test_a_trace_of_a_plain_tensor_is_refused(name):
    model = nn.Sequential(holdfast.weight_norm(nn.Linear(2, 2)))
    with pytest.raises(UnknownTensorError, match="0.weight"):
        holdfast.trace(model, name)


# Discoveries


@pytest.mark.parametrize(
    ("set_", "shape"),
    [
        (sets.Stiefel(), (5, 3)),
        (sets.SpecialOrthogonal(), (4, 4)),
        (sets.SymmetricMatrices(), (4, 4)),
        (sets.SkewMatrices(), (4, 4)),
        (sets.DiagonalMatrices(), (4, 4)),
        (sets.TriangularMatrices(upper=True), (4, 4)),
        (sets.BandedMatrices(), (5, 5)),
        (sets.CirculantMatrices(), (5, 5)),
        (sets.ToeplitzMatrices(), (5, 4)),
        (sets.SymmetricPositiveDefinite(), (4, 4)),
        (sets.CorrelationMatrices(), (4, 4)),
        (sets.LowRankMatrices(2), (6, 5)),
        (sets.Simplex(), (3, 4)),
        (sets.Sphere(), (3, 4)),
        (sets.TransportPolytope(), (4, 4)),
        (sets.NMSparse(2, 4), (3, 8)),
        (sets.Hurwitz(), (4, 4)),
        (sets.Stiefel(), (2, 3, 5, 3)),
        (sets.Sphere(), (7,)),
    ],
    ids=str,
)
def test_a_point_of_a_set_is_recognized(set_, shape):
    W = set_.sample(shape)
    before = bits(W)
    found = holdfast.discover(W)
    assert str(set_) in [each.set for each in found.holding]
    assert bits(W) == before
    assert str(set_) in str(found)


def test_a_point_beside_a_set_is_a_near_miss_and_not_in_it():
    W = sets.Stiefel().sample((6, 4)) + 1e-3 * torch.randn(6, 4)
    found = holdfast.discover(W)
    near = [each for each in found if each.set == "Stiefel()"]
    assert [each.holds for each in near] == [False]
    flags = [each.holds for each in found]
    assert flags == sorted(flags, reverse=True)
    misses = [each.residual for each in found if not each.holds]
    assert misses == sorted(misses)
    assert "Stiefel()" not in [each.set for each in holdfast.discover(W, near=1e-4)]


def test_the_smallest_set_is_named_first():
    found = holdfast.discover(sets.SpecialOrthogonal().sample((4, 4)))
    assert [each.set for each in found][:2] == ["SpecialOrthogonal()", "Stiefel()"]
    dims = [each.dim for each in found.holding]
    assert dims == sorted(dims)


@pytest.mark.parametrize(
    "W",
    [
        torch.randn(5, 4) * 3,
        torch.randn(3, 4, dtype=torch.complex128) * 3,
        torch.full((3, 3), math.nan),
        torch.tensor(-7),
    ],
    ids=str,
)
def test_nothing_is_made_up(W):
    found = holdfast.discover(W)
    assert not found.holding
    if not len(found):
        assert "no known set" in str(found)


@pytest.mark.parametrize("W", [torch.eye(3, dtype=torch.int64), torch.eye(3) > 0])
def test_integers_are_taken_as_numbers(W):
    assert "DiagonalMatrices()" in [each.set for each in holdfast.discover(W).holding]


@pytest.mark.parametrize("W", [torch.eye(3, device="meta"), torch.ones(0, 3)])
def test_without_values_there_is_nothing_to_discover(W):
    with pytest.raises(InvalidTensorError, match="a tensor with values"):
        holdfast.discover(W)


@pytest.mark.parametrize(
    ("unlike", "way_out"),
    [
        (lambda W: W.to_sparse(), "to_dense"),
        (lambda W: W.to(torch.float8_e4m3fn), "float()"),
        (lambda W: W.cfloat().to(torch.complex32), "complex64"),
        (lambda W: torch.quantize_per_tensor(W, 0.1, 0, torch.qint8), "dequantize"),
        (lambda W: torch.nested.nested_tensor([W, W[:2]]), "each of"),
    ],
    ids=["sparse", "float8", "complex32", "quantized", "nested"],
)
def test_a_tensor_that_sets_cannot_compute_with_is_refused(unlike, way_out):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls some of them experimental
        W = unlike(torch.eye(3))
    with pytest.raises(InvalidTensorError, match="dense") as caught:
        holdfast.discover(W)
    assert way_out in str(caught.value)


def test_of_a_tensor_that_is_not_finite_that_is_said():
    found = holdfast.discover(torch.tensor([[1.0, math.inf], [0.0, 1.0]]))
    assert not found.finite
    assert "not finite" in str(found)
    assert holdfast.discover(torch.randn(5, 4)).finite


@pytest.mark.parametrize("near", [-1.0, math.nan])
def test_near_is_a_number_from_zero_on(near):
    with pytest.raises(ValueError, match="near"):
        holdfast.discover(torch.eye(2), near=near)


def test_what_takes_long_is_left_out_and_said(monkeypatch):
    W = sets.SpecialOrthogonal().sample((20, 20))
    whole = holdfast.discover(W)
    assert whole.skipped == ()
    monkeypatch.setattr(known_sets, "_MOST_ROWS", 15)
    few = holdfast.discover(W)
    assert few.skipped == ("Hurwitz()", "SchurStable()")
    assert "Not asked" in str(few)
    assert [each for each in whole if each.set not in few.skipped] == [*few]
    monkeypatch.setattr(known_sets, "_MOST_ROWS", 9)
    fewer = holdfast.discover(W)
    assert {"SpectralBall()", "SpecialLinear()"} < {*fewer.skipped}
    assert fewer.holding[0].set == "SpecialOrthogonal()"


def test_a_batch_that_takes_long_is_left_out_too(monkeypatch):
    monkeypatch.setattr(known_sets, "_MOST_ROWS", 10)
    W = torch.randn(8, 6, 6)  # takes as long as a matrix of 12 rows
    assert holdfast.discover(W).skipped == ("Hurwitz()", "SchurStable()")
    assert holdfast.discover(W[:4]).skipped == ()


def test_sets_of_square_matrices_are_not_left_out_for_others(monkeypatch):
    monkeypatch.setattr(known_sets, "_MOST_ROWS", 2)
    skipped = holdfast.discover(torch.randn(6, 7)).skipped
    assert "SpectralBall()" in skipped
    assert not {"Hurwitz()", "SchurStable()", "SpecialLinear()"} & {*skipped}


def test_each_spectrum_is_computed_once(monkeypatch):
    ran = []
    for name in ("svdvals", "eigvals", "eigvalsh"):
        function = getattr(torch.linalg, name)

        def noted(X, _name=name, _function=function):
            if X.shape[-1] == 20:
                ran.append(_name)
            return _function(X)

        monkeypatch.setattr(torch.linalg, name, noted)
    holdfast.discover(torch.randn(20, 20))
    assert sorted(ran) == ["eigvals", "svdvals"]
    ran.clear()
    W = torch.randn(20, 20)
    holdfast.discover(W + W.mT)
    assert sorted(ran) == ["eigvals", "eigvalsh", "svdvals"]


def test_a_trace_takes_a_name():
    with pytest.raises(TypeError, match="name of a tensor"):
        holdfast.trace(holdfast.weight_norm(nn.Linear(2, 2)), 0)


def test_a_module_in_two_places_is_traced_under_both_names():
    layer = holdfast.orthogonal(nn.Linear(3, 3))
    model = nn.ModuleDict({"one": layer, "two": layer})
    first, second = (holdfast.trace(model, f"{key}.weight") for key in model)
    assert (first.tensor, second.tensor) == ("one.weight", "two.weight")
    assert [step.set for step in first] == [step.set for step in second]
    for path in ("three.weight", "two.bias", "two.parametrizations.weight"):
        with pytest.raises(holdfast.errors.UnknownTensorError):
            holdfast.trace(model, path)
