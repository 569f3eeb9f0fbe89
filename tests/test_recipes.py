"""The recipes against torch's own (T14), and where they part from it on purpose."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations as torch_recipes
from torch.nn.utils import parametrize as torch_parametrize
from torch.testing import assert_close

import holdfast
from holdfast import errors, linalg, maps, sets

MODULES = {
    "square Linear": (lambda: nn.Linear(5, 5), "weight", (3, 5)),
    "tall Linear": (lambda: nn.Linear(3, 6), "weight", (2, 3)),
    "wide Linear": (lambda: nn.Linear(6, 3), "weight", (2, 6)),
    "Conv1d": (lambda: nn.Conv1d(4, 3, 2), "weight", (2, 4, 5)),
    "Conv2d": (lambda: nn.Conv2d(2, 4, 3), "weight", (1, 2, 5, 5)),
    "ConvTranspose2d": (lambda: nn.ConvTranspose2d(3, 2, 2), "weight", (1, 3, 4, 4)),
    "RNN": (lambda: nn.RNN(3, 4), "weight_hh_l0", (2, 1, 3)),
    "LSTM": (lambda: nn.LSTM(3, 4), "weight_ih_l0", (2, 1, 3)),
    "LSTMCell": (lambda: nn.LSTMCell(3, 4), "weight_hh", (2, 3)),
    "Embedding": (lambda: nn.Embedding(6, 3), "weight", None),
    "double": (lambda: nn.Linear(4, 3).double(), "weight", (2, 4)),
}

RECIPES = {
    "matrix_exp": ("orthogonal", {"orthogonal_map": "matrix_exp"}),
    "cayley": ("orthogonal", {"orthogonal_map": "cayley"}),
    "householder": ("orthogonal", {"orthogonal_map": "householder"}),
    "exp without base": (
        "orthogonal",
        {"orthogonal_map": "matrix_exp", "use_trivialization": False},
    ),
    "cayley without base": (
        "orthogonal",
        {"orthogonal_map": "cayley", "use_trivialization": False},
    ),
    "householder without base": (
        "orthogonal",
        {"orthogonal_map": "householder", "use_trivialization": False},
    ),
    "weight_norm": ("weight_norm", {}),
    "weight_norm of columns": ("weight_norm", {"dim": 1}),
    "weight_norm of all": ("weight_norm", {"dim": None}),
    "spectral_norm": ("spectral_norm", {}),
    "spectral_norm by two": ("spectral_norm", {"n_power_iterations": 2, "dim": 1}),
}
BASED = ("matrix_exp", "cayley", "householder")
HIDDEN_SIGNS = "householder without base"  # where torch keeps them in the original

EVERY = pytest.mark.parametrize(
    ("kind", "recipe"), list(itertools.product(MODULES, RECIPES))
)


def pair(kind: str, recipe: str) -> tuple[nn.Module, nn.Module, str]:
    """Return the same module under our recipe and under torch's, and the name."""
    make, name, _ = MODULES[kind]
    function, options = RECIPES[recipe]
    ours = make()
    theirs = copy.deepcopy(ours)
    torch.manual_seed(5)
    getattr(holdfast, function)(ours, name, **options)
    torch.manual_seed(5)
    getattr(torch_recipes, function)(theirs, name, **options)
    return ours, theirs, name


def chain(module: nn.Module, name: str) -> nn.Module:
    return module.parametrizations[name]


def near(actual: Tensor, expected: Tensor) -> None:
    assert_close(actual, expected, rtol=1e-4, atol=2e-6)


def settle(*modules: nn.Module) -> None:
    for module in modules:
        module.eval()


# ---- The same as torch --------------------------------------------------------------


@EVERY
def test_T14_registration_gives_torchs_value(kind, recipe):
    ours, theirs, name = pair(kind, recipe)
    settle(ours, theirs)
    near(getattr(ours, name), getattr(theirs, name))


@EVERY
def test_T14_the_state_dict_has_torchs_keys_and_shapes(kind, recipe):
    ours, theirs, _ = pair(kind, recipe)
    mine = {k: (t.shape, t.dtype) for k, t in ours.state_dict().items()}
    expected = {k: (t.shape, t.dtype) for k, t in theirs.state_dict().items()}
    assert mine == expected
    assert [*mine] == [*expected]


def moved(module: nn.Module, name: str) -> nn.Module:
    """Move the originals a little, as training does."""
    with torch.no_grad():
        for parameter in chain(module, name).parameters():
            step = 0.1 * torch.randn_like(parameter)
            parameter += step.tril(-1) + step.triu(1) if parameter.ndim > 1 else step
    return module


@EVERY
def test_T14_torchs_checkpoint_loads_into_ours(kind, recipe):
    ours, theirs, name = pair(kind, recipe)
    moved(theirs, name)
    settle(ours, theirs)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    near(getattr(ours, name), getattr(theirs, name))


@EVERY
def test_T14_our_checkpoint_loads_into_torchs(kind, recipe):
    ours, theirs, name = pair(kind, recipe)
    moved(ours, name)
    settle(ours, theirs)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    near(getattr(theirs, name), getattr(ours, name))


@EVERY
def test_T14_gradients_are_torchs(kind, recipe):
    ours, theirs, name = pair(kind, recipe)
    moved(theirs, name)
    settle(ours, theirs)
    ours.load_state_dict(theirs.state_dict())
    weights = torch.randn_like(getattr(ours, name))
    for module in (ours, theirs):
        (getattr(module, name) * weights).sum().backward()
    for mine, expected in zip(
        chain(ours, name).parameters(), chain(theirs, name).parameters(), strict=True
    ):
        near(mine.grad, expected.grad)


@EVERY
def test_T14_the_module_computes_what_torchs_does(kind, recipe):
    ours, theirs, _ = pair(kind, recipe)
    settle(ours, theirs)
    ours.load_state_dict(theirs.state_dict())
    shape = MODULES[kind][2]
    x = torch.arange(6) if shape is None else torch.randn(shape)
    x = x.double() if kind == "double" else x
    mine, expected = ours(x), theirs(x)
    while isinstance(expected, tuple):
        mine, expected = mine[0], expected[0]
    near(mine, expected)


@pytest.mark.parametrize("recipe", RECIPES)
def test_T14_training_goes_the_way_of_torchs(recipe):
    """Five steps of SGD, spectral norm advancing once per forward on both sides."""
    ours, theirs, _ = pair("square Linear", recipe)
    x, y = torch.randn(7, 5), torch.randn(7, 5)
    for module in (ours, theirs):
        optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
        for _ in range(5):
            optimizer.zero_grad()
            (module(x) - y).square().mean().backward()
            optimizer.step()
    settle(ours, theirs)
    near(ours.weight, theirs.weight)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("target", ["in_proj_weight", "out_proj.weight"])
def test_T14_attention_weights(recipe, target):
    attention = nn.MultiheadAttention(4, 2)
    theirs = copy.deepcopy(attention)
    path, _, name = target.rpartition(".")
    function, options = RECIPES[recipe]
    for module, library in ((attention, holdfast), (theirs, torch_recipes)):
        torch.manual_seed(5)
        getattr(library, function)(module.get_submodule(path), name, **options)
        module.eval()
    x = torch.randn(3, 1, 4)
    near(attention(x, x, x)[0], theirs(x, x, x)[0])
    theirs.load_state_dict(attention.state_dict(), strict=True)
    near(attention(x, x, x)[0], theirs(x, x, x)[0])


@pytest.mark.parametrize("recipe", ["matrix_exp", "cayley", "exp without base"])
@pytest.mark.parametrize("shape", [(4, 4), (5, 3), (3, 5), (2, 4, 3)])
def test_T14_complex_weights(recipe, shape):
    class Holder(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(shape, dtype=torch.complex128))

    ours = Holder()
    theirs = copy.deepcopy(ours)
    holdfast.orthogonal(ours, **RECIPES[recipe][1])
    torch_recipes.orthogonal(theirs, **RECIPES[recipe][1])
    near(ours.weight, theirs.weight)
    moved(theirs, "weight")
    ours.load_state_dict(theirs.state_dict())
    near(ours.weight, theirs.weight)


@pytest.mark.parametrize("recipe", RECIPES)
def test_T14_our_maps_work_under_torchs_own_registration(recipe):
    function, options = RECIPES[recipe]
    ours = getattr(holdfast, function)(nn.Linear(5, 4), **options)
    link = copy.deepcopy(ours.parametrizations.weight[0])
    if isinstance(link, maps.SpectralNorm):
        link.advanced_by_host = False
    module = nn.Linear(5, 4)
    theirs = copy.deepcopy(module)
    torch.manual_seed(5)
    link = maps.from_spec(link.spec())
    torch_parametrize.register_parametrization(module, "weight", link)
    torch.manual_seed(5)
    getattr(torch_recipes, function)(theirs, **options)
    near(module.weight, theirs.weight)
    if recipe in (*BASED, HIDDEN_SIGNS):
        Q = sets.Stiefel().sample((4, 5))
        module.weight = Q
        near(module.weight, Q)
    value = module.weight.detach()
    torch_parametrize.remove_parametrizations(module, "weight")
    near(module.weight.detach(), value)


@pytest.mark.parametrize("link", [maps.Cayley, maps.MatrixExp])
def test_T7_chains_work_under_torchs_own_registration(link):
    layer = nn.Linear(4, 4)
    torch_parametrize.register_parametrization(layer, "weight", maps.Skew())
    A = layer.weight.detach()
    torch_parametrize.register_parametrization(layer, "weight", link())
    forward = linalg.cayley_transform
    if link is maps.MatrixExp:
        forward = linalg.matrix_exponential
    near(layer.weight, forward(A))
    layer.weight = -torch.eye(4)
    near(layer.weight, -torch.eye(4))


def test_the_comparison_sees_another_convention():
    """Negative control: a Cayley transform without the halves is another map."""
    ours, theirs, name = pair("square Linear", "cayley")
    moved(theirs, name)
    ours.load_state_dict(theirs.state_dict())
    with torch.no_grad():
        ours.parametrizations.weight.original *= 2
    with pytest.raises(AssertionError):
        near(ours.weight, theirs.weight)


# ---- Arguments and errors -----------------------------------------------------------


@pytest.mark.parametrize("function", ["orthogonal", "weight_norm", "spectral_norm"])
def test_an_unknown_name_is_an_error_with_a_suggestion(function):
    for name in ("weigth", "bais"):
        with pytest.raises(ValueError, match=rf"with name '{name}'.*Did you mean") as e:
            getattr(holdfast, function)(nn.Linear(2, 2), name)
        assert isinstance(e.value, errors.UnknownTensorError)
        assert "in_features" not in str(e.value)


@pytest.mark.parametrize("function", ["orthogonal", "spectral_norm"])
def test_torchs_phrase_for_an_unknown_name_is_kept(function):
    with pytest.raises(ValueError, match="has no parameter or buffer with name"):
        getattr(holdfast, function)(nn.Linear(2, 2), "w")


@pytest.mark.parametrize("function", ["orthogonal", "weight_norm", "spectral_norm"])
def test_an_attribute_error_of_a_map_is_no_unknown_tensor(function):
    class Faulty(nn.Module):
        broken = False

        def forward(self, X):
            return self.missing if self.broken else X

    layer, link = nn.Linear(2, 2), Faulty()
    holdfast.register_parametrization(layer, "weight", link)
    Faulty.broken = True
    with pytest.raises(AttributeError, match="missing"):
        getattr(holdfast, function)(layer)


def test_an_unknown_orthogonal_map_is_an_error():
    with pytest.raises(
        ValueError,
        match=r'one of .*"householder", "thin_cayley", "thin_matrix_exp"\. Got: exp',
    ):
        holdfast.orthogonal(nn.Linear(2, 2), orthogonal_map="exp")

    with pytest.raises(ValueError, match="orthogonal_map has to be one of"):
        maps.Orthogonal("exp").bind(torch.eye(2))


def test_a_mask_of_another_shape_is_refused():
    for shape in ((2, 2), (1, 4, 3), (3, 4)):
        layer = nn.Linear(3, 4)
        mask = maps.Mask(torch.ones(shape))
        with pytest.raises(ValueError, match=r"mask of the weight's shape \(4, 3\)"):
            holdfast.register_parametrization(layer, "weight", mask)
        assert not holdfast.is_parametrized(layer)
    for shape in ((4, 3), (1, 3), (4, 1), (3,), ()):
        holdfast.register_parametrization(
            nn.Linear(3, 4), "weight", maps.Mask(torch.ones(shape))
        )


def test_a_vector_cannot_be_orthogonal():
    layer = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="Expected a matrix or batch of matrices"):
        holdfast.orthogonal(layer, "bias")
    assert not holdfast.is_parametrized(layer)


def test_complex_reflections_are_refused():
    layer = nn.Linear(3, 3)
    layer.weight = nn.Parameter(layer.weight.to(torch.complex64))
    with pytest.raises(ValueError, match="householder .* not support complex tensors"):
        holdfast.orthogonal(layer, orthogonal_map="householder")
    with pytest.raises(ValueError, match="householder .* not support complex tensors"):
        maps.Householder().bind(layer.weight)


@pytest.mark.parametrize("count", [0, -1])
def test_the_number_of_power_iterations_is_checked(count):
    layer = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="Expected n_power_iterations to be positive"):
        holdfast.spectral_norm(layer, n_power_iterations=count)
    assert not holdfast.is_parametrized(layer)


@pytest.mark.parametrize("dim", [2, -3])
def test_a_dimension_out_of_range_is_an_error(dim):
    for function in (holdfast.spectral_norm, holdfast.weight_norm):
        with pytest.raises(IndexError, match="Dimension out of range"):
            function(nn.Linear(2, 2), dim=dim)


def test_the_default_map_depends_on_the_shape():
    def chosen(layer: nn.Module) -> str:
        return repr(holdfast.orthogonal(layer).parametrizations.weight[0])

    square = "Orthogonal(orthogonal_map='matrix_exp')"
    thin = "ThinOrthogonal(orthogonal_map='cayley')"
    for dtype in (torch.float32, torch.complex64):
        assert chosen(nn.Linear(3, 3, dtype=dtype)) == square
        assert chosen(nn.Linear(3, 4, dtype=dtype)) == thin
        assert chosen(nn.Linear(4, 3, dtype=dtype)) == thin


def test_transposed_convolutions_have_their_outputs_in_dimension_one():
    for make in (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d):
        module = holdfast.spectral_norm(make(3, 5, 2))
        assert module.parametrizations.weight[0]._u.shape == (5,)
    module = holdfast.spectral_norm(nn.ConvTranspose1d(3, 5, 2), dim=0)
    assert module.parametrizations.weight[0]._u.shape == (3,)


# ---- Orthogonal ---------------------------------------------------------------------


@pytest.mark.parametrize("recipe", BASED)
@pytest.mark.parametrize("shape", [(6, 6), (7, 4), (4, 7), (3, 5, 2)])
def test_registration_keeps_an_orthogonal_weight_exactly(recipe, shape):
    class Holder(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(sets.Stiefel().sample(shape))

    module = Holder()
    before = module.weight.detach().clone()
    state = torch.get_rng_state()
    holdfast.orthogonal(module, **RECIPES[recipe][1])
    assert torch.equal(torch.get_rng_state(), state), "no random numbers are drawn"
    assert torch.equal(module.weight, before)
    assert module.parametrizations.weight.moved == 0


@pytest.mark.parametrize("recipe", BASED)
def test_X3_every_tensor_is_contiguous_and_has_memory_of_its_own(recipe):
    for shape in ((5, 5), (5, 3), (3, 5)):
        layer = holdfast.orthogonal(nn.Linear(*shape), **RECIPES[recipe][1])
        layer.weight = sets.Stiefel().sample(layer.weight.shape)
        tensors = [*layer.state_dict().values()]
        assert all(tensor.is_contiguous() for tensor in tensors)
        places = {tensor.untyped_storage().data_ptr() for tensor in tensors}
        assert len(places) == len(tensors)


def test_assigning_moves_the_base_and_leaves_the_old_value_alone():
    layer = holdfast.orthogonal(nn.Linear(4, 4))
    first = layer.weight
    base = layer.parametrizations.weight[0].base
    copied = base.clone()
    layer.weight = sets.Stiefel().sample((4, 4))
    assert torch.equal(base, copied), "a state dict may still hold it"
    first.sum().backward()  # nor did it change under the graph


@pytest.mark.parametrize("kind", ["matrix_exp", "cayley"])
def test_without_a_base_nothing_can_be_assigned_to_these_two(kind):
    layer = nn.Linear(4, 4)
    before = layer.weight.detach().clone()
    holdfast.orthogonal(layer, orthogonal_map=kind, use_trivialization=False)
    assert torch.equal(layer.parametrizations.weight.original, before)
    with pytest.raises(RuntimeError, match="right_inverse"):
        layer.weight = torch.eye(4)
    link = maps.Orthogonal(kind, use_trivialization=False)
    with pytest.raises(NotImplementedError, match="maps.Skew"):
        link.right_inverse(torch.eye(4))


# ---- N4: signs ----------------------------------------------------------------------


@pytest.mark.parametrize("make", [nn.Linear, nn.Conv1d])
def test_N4_the_diagonal_is_never_read(make):
    module = make(6, 4) if make is nn.Linear else make(3, 5, 2)
    for options in ({}, {"use_trivialization": False}):
        layer = copy.deepcopy(module)
        holdfast.orthogonal(layer, orthogonal_map="householder", **options)
        before = layer.weight.detach().clone()
        with torch.no_grad():
            diagonal = layer.parametrizations.weight.original.diagonal(0, -2, -1)
            diagonal.zero_()
        assert torch.equal(layer.weight, before)


def test_N4_weight_decay_leaves_the_default_alone_where_torch_loses_it():
    layers = [
        holdfast.orthogonal(nn.Linear(6, 4)),
        torch_recipes.orthogonal(nn.Linear(6, 4)),
    ]
    for layer in layers:
        optimizer = torch.optim.AdamW(layer.parameters(), lr=1e-3)
        layer(torch.randn(2, 6)).sum().backward()
        optimizer.step()
    ours, theirs = layers
    assert linalg.orthogonality(ours.weight.detach().mT) < 1e-5
    assert not theirs.weight.any(), "the reason for N4"


def test_N4_torchs_signs_become_a_buffer():
    layer = torch_recipes.orthogonal(
        nn.Linear(6, 4), orthogonal_map="householder", use_trivialization=False
    )
    Q = sets.Stiefel().sample((4, 6))
    layer.weight = Q
    ours = holdfast.orthogonal(
        nn.Linear(6, 4), orthogonal_map="householder", use_trivialization=False
    )
    ours.load_state_dict(layer.state_dict(), strict=True)
    near(ours.weight, Q)
    signs = ours.parametrizations.weight[0].signs
    expected = layer.parametrizations.weight.original.diagonal().sign()
    assert torch.equal(signs.float(), expected)
    optimizer = torch.optim.AdamW(ours.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        ours(torch.randn(2, 6)).sum().backward()
        optimizer.step()
    assert linalg.orthogonality(ours.weight.detach().mT) < 1e-5


@pytest.mark.parametrize("recipe", ["householder", HIDDEN_SIGNS])
def test_N4_torch_reads_our_checkpoint_after_weight_decay(recipe):
    """torch takes the integer part of the diagonal, and 0 is that of -0.99."""
    ours, theirs, _ = pair("tall Linear", recipe)
    optimizer = torch.optim.AdamW(ours.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(3):
        ours(torch.randn(2, 3)).sum().backward()
        optimizer.step()
    original = ours.parametrizations.weight.original
    assert float(original.detach().diagonal().abs().max()) < 1
    before, version = ours.weight.detach().clone(), original._version
    theirs.load_state_dict(ours.state_dict(), strict=True)
    near(theirs.weight, ours.weight)
    # A state dict shares memory with the module, so they are written where they belong;
    # no value reads them there, so that none is recomputed and no graph is broken.
    assert torch.equal(original.detach().diagonal().abs(), torch.ones(3))
    assert torch.equal(ours.weight, before)
    assert original._version == version


@pytest.mark.parametrize("kind", MODULES)
@pytest.mark.parametrize("recipe", ["householder", HIDDEN_SIGNS])
def test_N4_a_state_dict_shares_memory_after_weight_decay_too(kind, recipe):
    """Averages of weights, such as timm's, are kept through the state dict."""
    ours, _, name = pair(kind, recipe)
    for parameter in ours.parameters():
        parameter.grad = torch.zeros_like(parameter)
    torch.optim.AdamW(ours.parameters(), lr=0.1, weight_decay=0.1).step()
    key = f"parametrizations.{name}.original"
    ours.state_dict()[key].zero_()
    assert not chain(ours, name).original.any()


def test_N4_a_graph_survives_a_state_dict_after_weight_decay():
    layer = holdfast.orthogonal(nn.Linear(3, 6), orthogonal_map="householder")
    with torch.no_grad():
        layer.parametrizations.weight.original.mul_(0.9)
    loss = layer(torch.randn(2, 3)).square().sum()
    layer.state_dict()
    loss.backward()
    assert bool(layer.parametrizations.weight.original.grad.isfinite().all())


def test_N4_a_state_dict_of_weights_made_in_inference_mode():
    with torch.inference_mode():
        layer = holdfast.orthogonal(nn.Linear(3, 6), orthogonal_map="householder")
        layer.parametrizations.weight.original.mul_(0.9)
    saved = layer.state_dict()["parametrizations.weight.original"]
    assert torch.equal(saved.diagonal(), -torch.ones(3))


def test_a_state_dict_shares_memory_with_the_parameters():
    layer = holdfast.orthogonal(nn.Linear(6, 4))
    original = layer.parametrizations.weight.original
    saved = layer.state_dict()["parametrizations.weight.original"]
    assert saved.data_ptr() == original.data_ptr()


def test_N4_missing_signs_are_still_reported_where_nothing_tells_them():
    ours = holdfast.orthogonal(
        nn.Linear(6, 4), orthogonal_map="householder", use_trivialization=False
    )
    state = {"bias": torch.zeros(4)}
    with pytest.raises(RuntimeError, match="Missing key"):
        ours.load_state_dict(state)
    before = ours.weight.detach()
    ours.load_state_dict(state, strict=False)
    assert torch.equal(ours.weight, before)


# ---- Weight norm --------------------------------------------------------------------


def test_N3_a_negative_dim_of_weight_norm_is_the_axis():
    """torch takes -1 for the whole tensor; that is None here."""
    layer = holdfast.weight_norm(nn.Linear(4, 3), dim=-1)
    assert layer.parametrizations.weight.original0.shape == (1, 4)
    whole = holdfast.weight_norm(nn.Linear(4, 3), dim=None)
    assert whole.parametrizations.weight.original0.shape == ()


def test_registering_weight_norm_keeps_the_value_bit_for_bit():
    for dim in (0, 1, None):
        layer = nn.Linear(7, 5)
        before = layer.weight.detach().clone()
        assert torch.equal(holdfast.weight_norm(layer, dim=dim).weight, before)


def test_N2_a_zero_weight_under_weight_norm_stays_zero_and_can_leave_it():
    layer = nn.Linear(4, 3)
    nn.init.zeros_(layer.weight)
    holdfast.weight_norm(layer)
    assert not layer.weight.any()
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    layer(torch.ones(1, 4)).sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in layer.parameters())
    optimizer.step()
    assert bool(layer.weight.any())


def test_N2_a_zero_direction_under_weight_norm_gives_zero_and_finite_gradients():
    layer = holdfast.weight_norm(nn.Linear(4, 3))
    nn.init.zeros_(layer.parametrizations.weight.original1)
    layer(torch.ones(1, 4)).sum().backward()
    assert not layer.weight.any()
    assert all(bool(p.grad.isfinite().all()) for p in layer.parameters())


def test_older_checkpoints_of_weight_norm_load():
    layer = holdfast.weight_norm(nn.Linear(4, 3))
    g, V = torch.rand(3, 1), torch.randn(3, 4)
    state = {"bias": torch.zeros(3), "weight_g": g, "weight_v": V}
    layer.load_state_dict(state, strict=True)
    near(layer.weight, g * V / torch.linalg.vector_norm(V, dim=1, keepdim=True))
    model = nn.Sequential(holdfast.weight_norm(nn.Linear(4, 3)))
    model.load_state_dict({f"0.{key}": value for key, value in state.items()})
    near(model[0].weight, layer.weight)
    holdfast.remove_parametrizations(layer, "weight")
    with pytest.raises(RuntimeError, match="weight_g"):
        layer.load_state_dict(state)


# ---- Spectral norm ------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_the_spectral_norm_converges_to_one(dtype):
    for module in (nn.Linear(6, 4), nn.Conv2d(2, 5, 3)):
        module.weight = nn.Parameter(torch.randn_like(module.weight, dtype=dtype))
        holdfast.spectral_norm(module, n_power_iterations=100)
        link = module.parametrizations.weight[0]
        link.refine_(module.parametrizations.weight.original)
        assert float(link.codomain.residual(module.weight.detach())) < 1e-6
        module.weight = 5 * module.weight.detach()
        assert float(link.codomain.residual(module.weight.detach())) < 1e-6


def test_R2_reading_spectral_norm_changes_nothing():
    layer = holdfast.spectral_norm(nn.Linear(5, 4)).train()
    before = {key: t.clone() for key, t in layer.state_dict().items()}
    values = [layer.weight.detach() for _ in range(3)]
    assert all(torch.equal(values[0], value) for value in values)
    assert all(torch.equal(before[key], t) for key, t in layer.state_dict().items())


def test_R2_spectral_norm_advances_once_per_training_forward():
    ours, theirs, _ = pair("square Linear", "spectral_norm")
    x = torch.randn(2, 5)
    for _ in range(4):
        ours(x)
        assert ours.weight is not None, "a read in between does not count"
        theirs(x)
    near(ours.parametrizations.weight[0]._u, theirs.parametrizations.weight[0]._u)
    settle(ours)
    vector = ours.parametrizations.weight[0]._u.clone()
    ours(x)
    assert torch.equal(ours.parametrizations.weight[0]._u, vector)


def test_R2_two_forwards_before_a_backward_are_differentiable():
    layer = holdfast.spectral_norm(nn.Linear(5, 4)).train()
    loss = layer(torch.randn(2, 5)).sum() - layer(torch.randn(2, 5)).sum()
    loss.backward()
    assert bool(layer.parametrizations.weight.original.grad.isfinite().all())


def test_N2_a_zero_weight_under_spectral_norm_recovers():
    layer = nn.Linear(5, 4)
    W = layer.weight.detach().clone()
    nn.init.zeros_(layer.weight)
    holdfast.spectral_norm(layer)
    layer(torch.ones(1, 5)).sum().backward()
    assert not layer.weight.any()
    assert bool(layer.parametrizations.weight.original.grad.isfinite().all())
    with torch.no_grad():
        layer.parametrizations.weight.original.copy_(W)
    for _ in range(50):
        layer(torch.ones(1, 5))
    assert_close(torch.linalg.matrix_norm(layer.weight, 2), torch.tensor(1.0))


def test_assigning_renews_the_vectors():
    layer = holdfast.spectral_norm(nn.Linear(5, 4)).eval()
    W = torch.zeros(4, 5)
    W[3, 2], W[0, 0] = 2.0, 1.0
    layer.weight = W
    assert_close(layer.weight.detach(), W / 2, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_N1_spectral_norm_in_half_precision(dtype):
    layer = holdfast.spectral_norm(nn.Linear(8, 6).to(dtype))
    for _ in range(20):
        layer(torch.ones(1, 8, dtype=dtype)).sum().backward()
    assert layer.weight.dtype == layer.parametrizations.weight[0]._u.dtype == dtype
    layer.weight = 3 * layer.weight.detach()
    norm = torch.linalg.matrix_norm(layer.weight.detach().float(), 2)
    assert_close(norm, torch.tensor(1.0), rtol=0, atol=0.02)


def test_a_vector_is_divided_by_its_norm():
    layer = nn.BatchNorm1d(4)
    nn.init.normal_(layer.weight)
    expected = layer.weight.detach() / torch.linalg.vector_norm(layer.weight.detach())
    holdfast.spectral_norm(layer)
    near(layer.weight, expected)
    nn.init.zeros_(layer.parametrizations.weight.original)
    layer.weight.sum().backward()
    assert bool(layer.parametrizations.weight.original.grad.isfinite().all())


# ---- Pruning, definite matrices -----------------------------------------------------


def test_T10_what_is_assigned_is_pruned():
    layer, mask = nn.Linear(3, 4), torch.rand(4, 3) > 0.2
    holdfast.register_parametrization(layer, "weight", maps.Mask(mask))
    X = torch.rand(4, 3)
    layer.weight = X
    assert torch.equal(layer.weight, X * mask)
    layer.weight.sum().backward()
    assert torch.equal(layer.parametrizations.weight.original.grad, mask.float())


def test_T10_a_mask_of_numbers_prunes_an_orthogonal_weight():
    layer = holdfast.orthogonal(nn.Linear(4, 4))
    Q = layer.weight.detach()
    mask = torch.eye(4)
    holdfast.register_parametrization(layer, "weight", maps.Mask(mask))
    assert torch.equal(layer.weight, Q * mask)
    assert layer.weight.dtype == torch.float32


def test_T7_symmetric_then_exponential_is_definite_and_assignable():
    layer = nn.Linear(4, 4)
    holdfast.register_parametrization(layer, "weight", maps.Symmetric())
    holdfast.register_parametrization(layer, "weight", maps.MatrixExp())
    assert bool((torch.linalg.eigvalsh(layer.weight) > 0).all())
    W = sets.SymmetricPositiveDefinite().sample((4, 4))
    layer.weight = W
    assert_close(layer.weight, W, rtol=0, atol=1e-5)
    before = layer.weight.detach()
    for wrong in (-W, W + torch.eye(4).roll(1, 0)):
        with pytest.raises(ValueError, match=r"not in SymmetricPositiveDefinite\(\)"):
            layer.weight = wrong
    assert torch.equal(layer.weight.detach(), before)


@pytest.mark.parametrize("recipe", ["spd", "hurwitz", "schur_stable"])
def test_a_matrix_without_entries_is_in_every_set_of_square_ones(recipe):
    module = torch.nn.Module()
    module.weight = torch.nn.Parameter(torch.zeros(0, 0))
    getattr(holdfast, recipe)(module, "weight")
    assert module.weight.shape == (0, 0)


def test_no_rows_are_probabilities_and_no_columns_orthogonal():
    module = torch.nn.Module()
    module.weight = torch.nn.Parameter(torch.zeros(0, 4))
    assert holdfast.simplex(module, "weight").weight.shape == (0, 4)
    module.tall = torch.nn.Parameter(torch.zeros(4, 0))
    assert holdfast.per_gate(module, "tall", gates=2).tall.shape == (4, 0)
