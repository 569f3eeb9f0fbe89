"""Maps around other maps: a tensor as one matrix, a scale, and the polar factor."""

from __future__ import annotations

import math

import pytest
import scipy.linalg
import torch
from torch import Tensor, nn
from torch.testing import assert_close

import holdfast
from holdfast import errors, linalg, maps, sets
from holdfast.testing.case import Host
from support import state_of, told


def registered(weight: Tensor, *links: holdfast.Parametrization) -> Host:
    host = Host(weight)
    for link in links:
        holdfast.register_parametrization(host, "weight", link)
    return host


def refused(weight: Tensor, link: holdfast.Parametrization, kind: type) -> str:
    """Return what is said, and see that nothing has changed."""
    host = Host(weight)
    before = state_of(host)
    with pytest.raises(kind) as caught:
        holdfast.register_parametrization(host, "weight", link)
    assert state_of(host) == before
    return told(caught.value)


# ---- Matrices -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "matrix"),
    [
        (0, "o (i h w)"),
        (1, "i (o h w)"),
        (-1, "w (o i h)"),
        ((0, 1), "(o i) (h w)"),
        ((-1, 0), "(w o) (i h)"),
        ((), "() (o i h w)"),
        ((0, 1, 2, 3), "(o i h w) ()"),
    ],
)
def test_matricize_puts_the_dimensions_where_they_belong(rows, matrix):
    """The pattern says which index runs slowest among the rows and the columns."""
    sizes = {"o": 5, "i": 2, "h": 3, "w": 4}
    W = torch.arange(120).reshape(5, 2, 3, 4)
    M = linalg.matricize(W, rows)
    left, right = split(matrix)
    strides = dict(zip("oihw", W.stride(), strict=True))
    assert M.shape == linalg.matricized_shape((5, 2, 3, 4), rows)
    for r in (0, 1, M.shape[0] - 1):
        for c in (0, 1, M.shape[1] - 1):
            if r < M.shape[0] and c < M.shape[1]:
                index = {**digits(r, left, sizes), **digits(c, right, sizes)}
                assert int(M[r, c]) == sum(index[x] * strides[x] for x in index)
    assert torch.equal(linalg.tensorize(M, (5, 2, 3, 4), rows), W)


def split(pattern: str) -> tuple[str, str]:
    """Return the letters of the rows and of the columns."""
    words = pattern.replace("(", " ( ").replace(")", " ) ").split()
    groups, inside = [""], False
    for word in words:
        inside = word == "(" or (inside and word != ")")
        groups[-1] += word.strip("()")
        if not inside:
            groups.append("")
    return groups[0], groups[1]


def digits(number: int, letters: str, sizes: dict[str, int]) -> dict[str, int]:
    index = {}
    for letter in reversed(letters):
        number, index[letter] = divmod(number, sizes[letter])
    return index


@pytest.mark.parametrize("axes", [0, 1, -1, (0, 1), (-1, 0)])
def test_a_kernel_is_one_orthogonal_matrix(axes):
    layer = holdfast.orthogonal(nn.Conv2d(3, 4, 2), axes=axes)
    M = linalg.matricize(layer.weight.detach(), axes)
    assert layer.weight.shape == (4, 3, 2, 2)
    assert layer.weight.is_contiguous()
    assert sets.Stiefel().contains(M)
    assert layer(torch.randn(1, 3, 5, 5)).shape == (1, 4, 4, 4)
    assert layer.parametrizations.weight.original.shape == M.shape


def test_without_axes_a_kernel_is_a_batch_of_matrices():
    """As in torch."""
    layer = holdfast.orthogonal(nn.Conv2d(2, 4, 3))
    assert sets.Stiefel().contains(layer.weight)
    assert not sets.Stiefel().contains(layer.weight.flatten(1))


def test_the_choice_of_a_map_goes_by_the_matrix():
    square = holdfast.orthogonal(nn.Conv2d(2, 4, (1, 2)), axes=0)
    assert type(square.parametrizations.weight[0].map) is maps.Orthogonal
    wide = holdfast.orthogonal(nn.Conv2d(2, 4, 3), axes=0)
    assert type(wide.parametrizations.weight[0].map) is maps.ThinOrthogonal
    rotation = holdfast.orthogonal(nn.Conv2d(2, 4, (1, 2)), axes=0, special=True)
    det = torch.linalg.det(rotation.weight.detach().flatten(1))
    assert_close(det, torch.tensor(1.0))
    assert_close(holdfast.orthogonal(nn.Linear(3, 5), "bias", axes=0).bias.norm(), ONE)


ONE = torch.tensor(1.0)


def test_a_kernel_is_assigned_as_a_whole():
    layer = holdfast.orthogonal(nn.Conv2d(2, 4, 3), axes=0)
    Q = sets.Stiefel().sample((4, 18)).reshape(4, 2, 3, 3)
    layer.weight = Q
    assert_close(layer.weight, Q, rtol=0, atol=1e-6)
    holdfast.remove_parametrizations(layer, "weight")
    assert_close(layer.weight.detach(), Q, rtol=0, atol=1e-6)
    assert [name for name, _ in layer.named_parameters()] == ["weight", "bias"]


def test_the_declared_set_is_held_against_the_matrix():
    symmetric = maps.Matricized(maps.Symmetric(), (0, 1))
    host = registered(torch.randn(2, 3, 6), symmetric)
    before = host.weight.detach()
    with pytest.raises(
        errors.NotInSetError,
        match=r"Matricized\(set=SymmetricMatrices\(\), rows=\(0, 1\)\) of `Matricized`",
    ):
        host.weight = torch.randn(2, 3, 6)
    assert torch.equal(host.weight, before)
    assert sets.SymmetricMatrices().contains(host.weight.reshape(6, 6))


def test_axes_that_make_no_matrix_are_refused():
    W, thin = torch.randn(4, 2, 3), maps.ThinOrthogonal()
    said = refused(W, maps.Matricized(thin, (1, -2)), ValueError)
    assert "each dimension once among the rows. Got (1, -2) for a tensor of 3" in said
    assert "Host.weight" in said
    said = refused(W, maps.Matricized(thin, 3), IndexError)
    assert "expected to be in range of [-3, 2], but got 3" in said
    said = refused(W, maps.Matricized(maps.Symmetric()), errors.InvalidTensorError)
    assert "Expected a square matrix" in said
    host = Host(W)
    before = state_of(host)
    with pytest.raises(ValueError, match="once among the rows"):
        holdfast.orthogonal(host, axes=(0, 0))
    assert state_of(host) == before


def test_a_missing_right_inverse_is_told_apart_from_an_error():
    inner = maps.Orthogonal("cayley", use_trivialization=False)
    for outer in (
        maps.Matricized(inner),
        maps.Scaled(maps.Matricized(inner)),
        maps.Scaled(maps.Matricized(inner), 2.0),
    ):
        host = Host(torch.randn(4, 2, 3))
        if isinstance(outer, maps.Scaled) and outer.scale is None:
            with pytest.raises(
                errors.InvalidTensorError, match="so that no scale can be"
            ):
                holdfast.register_parametrization(host, "weight", outer)
            continue
        holdfast.register_parametrization(host, "weight", outer)
        with pytest.raises(errors.NoRightInverseError, match="use_trivialization=Fal"):
            host.weight = host.weight.detach()


class Failing(holdfast.Parametrization):
    def forward(self, X):
        return X

    def right_inverse(self, weight):
        return self.missing_kernel()

    def missing_kernel(self):
        raise NotImplementedError("no kernel")


def test_an_error_of_the_same_type_in_a_right_inverse_is_an_error():
    for outer in (maps.Matricized(Failing()), maps.Scaled(Failing(), 2.0)):
        assert "no kernel" in refused(torch.randn(2, 2), outer, NotImplementedError)


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_moving_state_moves_once_in_a_forward(scale):
    """As that of the same map on the matrix itself, and never on a read."""
    torch.manual_seed(0)
    plain, kernel = nn.Linear(18, 4, bias=False), nn.Conv2d(2, 4, 3, bias=False)
    with torch.no_grad():
        kernel.weight.copy_(plain.weight.reshape(4, 2, 3, 3))
    for module, link in (
        (plain, maps.SpectralNorm()),
        (kernel, maps.Scaled(maps.Matricized(maps.SpectralNorm()), scale)),
    ):
        torch.manual_seed(1)
        holdfast.register_parametrization(module, "weight", link)
    for _ in range(3):
        plain(torch.randn(1, 18))
        kernel(torch.randn(1, 2, 3, 3))
        inner = kernel.parametrizations.weight[0].map.map
        moved = inner._u.clone()
        assert_close(kernel.weight.flatten(1), scale * plain.weight)
        assert torch.equal(inner._u, moved)
    assert inner.advanced_by_host
    holdfast.remove_parametrizations(kernel, "weight")
    assert not inner.advanced_by_host


@pytest.mark.parametrize("scale", [None, 2.0])
def test_bases_inside_follow_the_weights(scale):
    inner = maps.Matricized(maps.Orthogonal("cayley"), -1)
    host = registered(torch.randn(3, 2, 2).double(), maps.Scaled(inner, scale))
    optimizer = torch.optim.SGD(host.parameters(), lr=0.1)
    holdfast.Rebase(host, optimizer, every=1)
    base, X = inner.map.base.clone(), torch.randn(3, 2, 2).double()
    host(X).backward()
    value = []
    hook = optimizer.register_step_pre_hook(lambda *_: value.append(host.weight))
    optimizer.step()
    hook.remove()
    assert float(torch.dist(inner.map.base, base)) > 1e-3
    *_, coordinates = host.parametrizations.weight.originals()
    assert float(coordinates.detach().tril(-1).abs().max()) == 0
    factor = host.parametrizations.weight.original0 if scale is None else scale
    expected = factor * linalg.tensorize(inner.map.base[:, :2].mT, (3, 2, 2), -1)
    assert_close(host.weight, expected)


def test_the_keys_of_a_state_dict_name_the_maps():
    layer = nn.Conv2d(2, 4, 3)
    nested = maps.Scaled(maps.Matricized(maps.Orthogonal("cayley")))
    holdfast.register_parametrization(layer, "weight", nested)
    assert list(layer.state_dict()) == [
        "bias",
        "parametrizations.weight.original0",
        "parametrizations.weight.original1",
        "parametrizations.weight.0.map.map.base",
    ]


def test_signs_survive_weight_decay_inside_a_wrapper():
    """Torch's place for them is the diagonal, which Adam's decay moves across zero."""
    inner = maps.Orthogonal("householder", use_trivialization=False)
    host = registered(torch.randn(4, 2, 2), maps.Matricized(inner))
    optimizer = torch.optim.Adam(host.parameters(), lr=0.5, weight_decay=0.1)
    for _ in range(10):
        optimizer.zero_grad()
        host(torch.randn(4, 2, 2)).backward()
        optimizer.step()
    again = maps.Orthogonal("householder", use_trivialization=False)
    twin = registered(torch.randn(4, 2, 2), maps.Matricized(again))
    twin.load_state_dict(host.state_dict())
    assert torch.equal(twin.weight, host.weight)


def test_an_original_of_another_shape_is_not_left_behind():
    layer = holdfast.orthogonal(nn.Conv2d(2, 4, 3), axes=0)
    before = state_of(layer)
    with pytest.raises(ValueError, match=r"shape \(4, 2, 3, 3\), whose original has"):
        holdfast.remove_parametrizations(layer, "weight", leave_parametrized=False)
    assert state_of(layer) == before


def test_a_matricized_map_comes_first():
    """Its originals are matrices, and a map before it makes a tensor."""
    host = registered(torch.randn(4, 2, 3), maps.Mask(torch.ones(4, 2, 3)))
    before = state_of(host)
    with pytest.raises(errors.InvalidTensorError, match="same shape as the value"):
        holdfast.register_parametrization(
            host, "weight", maps.Matricized(maps.ThinOrthogonal())
        )
    assert state_of(host) == before


# ---- Scales -------------------------------------------------------------------------


def test_a_learnt_scale_starts_at_the_nearest_multiple():
    W = torch.randn(5, 3, dtype=torch.float64)
    host = registered(W.clone(), maps.Scaled(maps.Polar()))
    chain = host.parametrizations.weight
    assert_close(host.weight, sets.ScaledOrthogonal().project(W))
    assert_close(chain.original0, torch.linalg.svdvals(W).mean())
    host.weight = 7 * sets.Stiefel().sample((5, 3), dtype=torch.float64)
    assert_close(chain.original0.detach(), torch.tensor(7.0).double())


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
def test_each_matrix_of_a_batch_has_a_scale(dtype):
    Q = sets.Stiefel().sample((3, 4, 2), dtype=dtype)
    scales = torch.tensor([1.0, 10.0, 0.1]).double()[:, None, None]
    host = registered(scales * Q, maps.Scaled(maps.ThinOrthogonal()))
    assert_close(host.parametrizations.weight.original0.detach(), scales)
    assert_close(host.weight.detach(), scales * Q)
    kernel = registered(Q, maps.Scaled(maps.Matricized(maps.ThinOrthogonal())))
    assert kernel.parametrizations.weight.original0.shape == ()


def test_a_given_scale_divides_on_the_way_back():
    host = registered(torch.randn(3, 3).double(), maps.Scaled(maps.Symmetric(), 4.0))
    W = sets.SymmetricMatrices().sample((3, 3), dtype=torch.float64)
    host.weight = W
    assert_close(host.weight.detach(), W)
    assert_close(host.parametrizations.weight.original.detach(), (W / 4).triu())
    assert "scale=4.0" in repr(host)
    twice = registered(torch.randn(5, 3).double(), maps.Scaled(maps.Polar(), -2.0))
    assert sets.Scaled(sets.Stiefel(), -2.0).contains(twice.weight)
    assert repr(twice.parametrizations.weight[0].codomain) == (
        "Scaled(set=Stiefel(), factor=-2.0)"
    )


def test_a_given_scale_keeps_what_the_map_refuses():
    link = maps.Scaled(maps.Orthogonal(special=True), 2.0)
    host = registered(torch.randn(3, 3).double(), link)
    with pytest.raises(errors.NotInSetError, match=r"set=SpecialOrthogonal\(\), fact"):
        host.weight = -2 * torch.eye(3).double()
    host.weight = 2 * torch.eye(3).double()
    assert_close(host.weight.detach(), 2 * torch.eye(3).double())


@pytest.mark.parametrize("scale", [0.0, math.inf, math.nan])
def test_a_scale_that_cannot_be_divided_by_is_refused(scale):
    said = refused(torch.eye(3), maps.Scaled(maps.Polar(), scale), ValueError)
    assert f"Expected a scale other than 0, and finite. Got {scale}." in said


def test_zero_has_no_direction():
    said = refused(torch.zeros(3, 3), maps.Scaled(maps.Polar()), errors.NotInSetError)
    assert "a positive multiple of a tensor in Stiefel(). Got one of scale 0.0" in said
    host = registered(torch.zeros(3, 3), maps.Scaled(maps.Skew()))
    assert float(host.parametrizations.weight.original0.detach()) == 1


@pytest.mark.parametrize(
    "inner", [maps.Orthogonal(special=True), maps.MatrixExp(), maps.SpectralNorm()]
)
def test_a_learnt_scale_is_refused_where_its_sign_matters(inner):
    said = refused(torch.eye(3), maps.Scaled(inner), errors.InvalidTensorError)
    assert "may change its sign, which leads out of" in said
    assert "Give `scale` a number" in said


def test_training_finds_the_scale():
    target = 3 * sets.SpecialOrthogonal().sample((3, 3))
    host = registered(torch.eye(3), maps.Scaled(maps.Orthogonal()))
    optimizer = torch.optim.Adam(host.parameters(), lr=0.05)
    for _ in range(600):
        optimizer.zero_grad()
        (host.weight - target).square().sum().backward()
        optimizer.step()
    assert_close(host.weight.detach(), target, rtol=0, atol=1e-2)
    scale = host.parametrizations.weight.original0
    assert_close(scale.detach(), torch.tensor(3.0), rtol=0, atol=1e-2)
    for value in (-2.0, 0.0):  # where it may pass
        with torch.no_grad():
            scale.fill_(value)
        assert sets.ScaledOrthogonal().contains(host.weight)


# ---- Polar factors ------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4)])
def test_the_polar_map_is_the_nearest_point(shape):
    W = torch.randn(shape, dtype=torch.complex128)
    host = registered(W.clone(), maps.Polar())
    tall = W.numpy() if shape[0] >= shape[1] else W.numpy().T
    expected = torch.from_numpy(scipy.linalg.polar(tall)[0])
    expected = expected if shape[0] >= shape[1] else expected.mT
    assert_close(host.weight.detach(), expected)
    assert_close(host.parametrizations.weight.original.detach(), W)
    host.weight = -2 * W
    assert_close(host.weight.detach(), -expected)


def test_the_polar_factor_jumps_where_rank_is_lost():
    """And has a value and a finite slope there all the same."""
    X = torch.diag(torch.tensor([1.0, 1e-6]))
    near, far = maps.Polar()(X), maps.Polar()(X * torch.tensor([1.0, -1.0]))
    assert float(torch.dist(near, far)) > 1.9
    singular = torch.ones(3, 3, requires_grad=True)
    Q = maps.Polar()(singular)
    Q.sum().backward()
    assert sets.Stiefel().contains(Q)
    assert bool(singular.grad.isfinite().all())
