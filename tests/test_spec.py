"""Maps as plain data, and back from data that may come from anywhere."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import holdfast
from cases import CASES
from holdfast import Parametrization, maps, sets
from holdfast.errors import HoldfastError, SpecError
from holdfast.testing.given import AroundGiven


class Wrapper(Parametrization):
    """Takes one argument of every kind that a spec can hold."""

    def __init__(
        self,
        map: Parametrization,
        *,
        dims: tuple[int, ...] = (0, 1),
        names: Sequence[str] = (),
        pair: tuple[int, float] | None = None,
        scale: float = 1.0,
        dtype: torch.dtype | None = None,
        kind: Literal["first", "second"] | None = "first",
        inside: sets.Constraint | None = None,
        skew: maps.Skew | None = None,
    ) -> None:
        super().__init__()
        self.map = map
        self.dims, self.names, self.pair = dims, names, pair
        self.scale, self.dtype, self.kind = scale, dtype, kind
        self.inside, self.skew = inside, skew


class Several(Parametrization):
    """Takes any number of maps."""

    def __init__(self, *links: Parametrization, reverse: bool = False) -> None:
        super().__init__()
        self.links = nn.ModuleList(links)
        self.reverse = reverse


class Untyped(Parametrization):
    """Says nothing about the types of its arguments."""

    def __init__(self, factor=1.0) -> None:
        super().__init__()
        self.factor = factor


class Bare(Parametrization):
    """Has no constructor."""


class Called(Parametrization):
    """Takes what no data can stand for."""

    def __init__(self, function: Any = None) -> None:
        super().__init__()
        self.function = function


class Unresolved(Parametrization):
    """Names a type that is imported for type checkers only, say."""

    def __init__(self, dim: Nowhere = 0) -> None:  # noqa: F821
        super().__init__()
        self.dim = dim


class Hidden(Parametrization):
    """Does not store its argument under its name."""

    def __init__(self, dim: int = 0) -> None:
        super().__init__()
        self.axis = dim


OWN = (Wrapper, Several, Untyped, Bare, Called, Unresolved, AroundGiven)


def read(spec: Any) -> Parametrization:
    return maps.from_spec(spec, also=OWN)


def there_and_back(link: Parametrization) -> Parametrization:
    spec = link.spec()
    stored = json.loads(json.dumps(spec, allow_nan=False))
    assert stored == spec
    twin = read(stored)
    assert type(twin) is type(link)
    assert twin.spec() == spec
    assert repr(twin) == repr(link)
    return twin


# ---- There and back -----------------------------------------------------------------


PLAIN = [case for case in CASES if "spec" not in case.exceptions]


@pytest.mark.parametrize("case", PLAIN, ids=str)
def test_the_spec_and_the_state_of_a_chain_make_the_same_weight(case):
    shape, dtype = case.shapes[0], case.dtypes[0]
    host = case.registered(torch.randn(shape, dtype=dtype)).eval()
    twin = nn.Module()
    twin.weight = nn.Parameter(torch.randn(shape, dtype=dtype))
    for link in host.parametrizations.weight:
        holdfast.register_parametrization(twin, "weight", there_and_back(link))
    twin.eval().load_state_dict(host.state_dict())
    assert torch.equal(twin.weight, host.weight)


def test_a_spec_reads_as_in_the_documentation():
    assert maps.WeightNorm(dim=1).spec() == {"map": "WeightNorm", "dim": 1}
    assert maps.Mask(torch.ones(1, 2, dtype=torch.bool)).spec() == {
        "map": "Mask",
        "mask": {"shape": [1, 2], "dtype": "bool", "values": [True, True]},
    }


def test_arguments_of_every_kind_come_back_as_they_were():
    link = Wrapper(
        maps.WeightNorm(None),
        dims=(2, 3),
        names=("a", "b"),
        pair=(1, 0.5),
        scale=2,
        dtype=torch.bfloat16,
        kind=None,
        inside=sets.SpectralBall(2.0, axis=1),
        skew=maps.Skew(),
    )
    assert link.spec()["map_"] == {"map": "WeightNorm", "dim": None}
    assert link.spec()["inside"] == {"set": "SpectralBall", "radius": 2.0, "axis": 1}
    twin = there_and_back(link)
    assert (twin.dims, twin.names, twin.pair) == ((2, 3), ("a", "b"), (1, 0.5))
    assert (twin.scale, twin.dtype, twin.kind) == (2, torch.bfloat16, None)
    assert twin.map.dim is None
    assert isinstance(twin.skew, maps.Skew)
    assert repr(twin.inside) == "SpectralBall(radius=2.0, axis=1)"


@pytest.mark.parametrize(
    "link",
    [
        Several(),
        Several(maps.Skew(), Several(maps.Cayley(), reverse=True)),
        Untyped("x"),
        Bare(),
        Wrapper(Wrapper(maps.Skew()), inside=sets.Stiefel()),
    ],
    ids=lambda link: type(link).__name__,
)
def test_nested_and_plain_maps_come_back(link):
    there_and_back(link)


def test_what_is_left_out_takes_its_default():
    assert repr(maps.from_spec({"map": "Triangular", "strict": True})) == (
        "Triangular(strict=True)"
    )


def test_a_small_tensor_is_written_down_with_its_values():
    spec = maps.Mask(torch.tensor([[True, False], [False, True]])).spec()
    assert spec["mask"]["values"] == [True, False, False, True]
    assert maps.from_spec(spec).mask.tolist() == [[True, False], [False, True]]
    bound = torch.tensor([0.1, 1 / 3], dtype=torch.float64)
    spec = json.loads(json.dumps(maps.Softplus(bound).spec()))
    assert torch.equal(maps.from_spec(spec).bound, bound)


def test_a_placeholder_gets_its_values_from_the_state_dict():
    mask = torch.arange(400).reshape(20, 20) % 3 == 0
    assert "values" not in maps.Mask(mask).spec()["mask"]
    twin = maps.from_spec(maps.Mask(mask).spec())
    assert twin.mask.dtype == torch.bool
    assert not twin.mask.any()
    twin.load_state_dict(maps.Mask(mask).state_dict())
    assert torch.equal(twin.mask, mask)


@pytest.mark.parametrize("kind", [maps.Sinkhorn, maps.NorthwestCorner])
def test_sums_of_many_rows_are_there_before_the_state_dict(kind):
    rows, columns = torch.arange(1.0, 301), torch.full((310,), 300 * 301 / 620)
    twin = maps.from_spec(json.loads(json.dumps(kind(rows, columns).spec())))
    assert torch.equal(twin.rows, rows)
    layer = nn.Linear(310, 300)
    holdfast.register_parametrization(layer, "weight", twin)
    assert sets.TransportPolytope(rows, columns).contains(layer.weight)


# ---- What no data can describe ------------------------------------------------------


@pytest.mark.parametrize(
    ("link", "message"),
    [
        (Called(torch.sin), r"`Called.function` is .*, which is no plain data"),
        (Untyped(float("inf")), "`Untyped.factor` is .*, which is no plain data"),
        (Untyped(nn.Linear(1, 1)), "`Untyped.factor` is a Linear"),
        (Hidden(), "no `Hidden.dim`: .* under their own names"),
    ],
    ids=lambda x: type(x).__name__,
)
def test_a_map_that_data_cannot_describe_says_so(link, message):
    with pytest.raises(SpecError, match=message):
        link.spec()


def test_a_name_of_ours_cannot_be_taken():
    taken = type("Skew", (Parametrization,), {})
    with pytest.raises(SpecError, match="`Skew` is a map of holdfast already"):
        maps.from_spec({"map": "Skew"}, also=[taken])


# ---- Hostile data -------------------------------------------------------------------

SKEW = {"map": "Skew"}


def deep(levels: int) -> Any:
    spec = SKEW
    for _ in range(levels):
        spec = {"map": "Several", "links": [spec]}
    return spec


REFUSED = {
    "nothing": ({}, '`spec`: expected a dictionary with the name of a map as "map"'),
    "a list": ([SKEW], "`spec`: expected a dictionary .* Got list"),
    "a number as name": ({"map": 3}, "`spec`: expected a dictionary"),
    "unknown": ({"map": "Cayly"}, "`spec.map`: .* `Cayly`. Did you mean `Cayley`"),
    "a function": ({"map": "from_spec"}, "no map `from_spec`"),
    "the base": ({"map": "Parametrization"}, "no map `Parametrization`"),
    "a dotted path": ({"map": "os.system"}, "no map `os.system`"),
    "a set": ({"map": "Stiefel"}, "no map `Stiefel`"),
    "a user's": ({"map": "Elsewhere"}, "no map `Elsewhere`"),
    "unknown argument": (
        {"map": "WeightNorm", "dmi": 0},
        "`WeightNorm` has no argument `dmi`. Did you mean `dim`",
    ),
    "an attribute": ({"map": "Skew", "training": False}, "no argument `training`"),
    "missing": ({"map": "Mask"}, "`spec.mask` is missing: `Mask` needs it"),
    "a float": (
        {"map": "WeightNorm", "dim": 0.5},
        "`spec.dim`: expected int or None. Got float",
    ),
    "a bool": ({"map": "WeightNorm", "dim": True}, "`spec.dim`: .* Got bool"),
    "a number": ({"map": "Triangular", "upper": 1}, "`spec.upper`: expected bool"),
    "huge": ({"map": "WeightNorm", "dim": 2**63}, "`spec.dim` is no finite number"),
    "no size of anything": (
        {"map": "LoRA", "rank": 2**40 + 1},
        "`spec.rank` is 1099511627777, expected an integer of at most 1099511627776",
    ),
    "no size of anything, below zero": (
        {"map": "WeightNorm", "dim": -(2**41)},
        "`spec.dim` is -2199023255552, expected an integer of at most",
    ),
    "inf": ({"map": "SpectralNorm", "eps": float("inf")}, "`spec.eps` is no finite"),
    "nan": ({"map": "SpectralNorm", "eps": float("nan")}, "`spec.eps` is no finite"),
    "a choice": (
        {"map": "Orthogonal", "orthogonal_map": "caylay"},
        "`spec.orthogonal_map`: .* Did you mean `cayley`",
    ),
    "no choice": ({"map": "Orthogonal", "orthogonal_map": 3}, "`spec.orthogonal_map`"),
    "nested": (
        {"map": "Wrapper", "map_": {"map": "WeightNorm", "dim": "x"}},
        "`spec.map_.dim`: expected int or None. Got `x`",
    ),
    "nested in a list": (
        {"map": "Several", "links": [SKEW, {"map": "Nothing"}]},
        r"`spec.links\[1\].map`: there is no map `Nothing`",
    ),
    "optional and nested": (
        {"map": "Wrapper", "map_": SKEW, "inside": {"set": "Stifel"}},
        "`spec.inside.set`: there is no set `Stifel`. Did you mean `Stiefel`",
    ),
    "abstract": (
        {"map": "Wrapper", "map_": SKEW, "inside": {"set": "Constraint"}},
        "no set `Constraint`",
    ),
    "another map": (
        {"map": "Wrapper", "map_": SKEW, "skew": {"map": "Cayley"}},
        "`spec.skew`: expected Skew or None",
    ),
    "the wrong length": (
        {"map": "Wrapper", "map_": SKEW, "pair": [1]},
        r"`spec.pair`: expected .*tuple\[int, float\]",
    ),
    "a wrong item": (
        {"map": "Wrapper", "map_": SKEW, "dims": [0, "1"]},
        r"`spec.dims\[1\]`: expected int",
    ),
    "a dtype": ({"map": "Wrapper", "map_": SKEW, "dtype": "flaot32"}, "`spec.dtype`"),
    "no data": ({"map": "Called", "function": "f"}, "`spec.function`: no data stands"),
    "a placeholder without dtype": (
        {"map": "Mask", "mask": {"shape": [2]}},
        '`spec.mask`: expected a dictionary of "shape" and "dtype"',
    ),
    "a dtype of no tensor": (
        {"map": "Mask", "mask": {"shape": [2], "dtype": "object"}},
        "`spec.mask.dtype`",
    ),
    "too few values": (
        {"map": "Mask", "mask": {"shape": [2], "dtype": "bool", "values": [True]}},
        r"`spec.mask.values`: expected a list of 2 numbers",
    ),
    "too many values": (
        {
            "map": "Mask",
            "mask": {"shape": [3, 99], "dtype": "bool", "values": [True] * 297},
        },
        r"`spec.mask.values`: expected a list of 297 numbers, 256 at most",
    ),
    "too many values of a vector": (
        {
            "map": "Mask",
            "mask": {"shape": [4097], "dtype": "bool", "values": [True] * 4097},
        },
        r"`spec.mask.values`: expected a list of 4097 numbers, 4096 at most",
    ),
    "values of another type": (
        {"map": "Mask", "mask": {"shape": [1], "dtype": "bool", "values": [1]}},
        r"`spec.mask.values\[0\]`: expected bool",
    ),
    "values that do not fit": (
        {"map": "Softplus", "sign": {"shape": [1], "dtype": "int8", "values": [999]}},
        r"`spec.sign.values`: ",
    ),
    "negative": (
        {"map": "Mask", "mask": {"shape": [2, -1], "dtype": "bool"}},
        r"`spec.mask.shape` has a negative size in \(2, -1\)",
    ),
    "large": (
        {"map": "Mask", "mask": {"shape": [2**16, 2**16], "dtype": "bool"}},
        "`spec.mask.shape` makes 4294967296 bytes, expected at most 2147483648",
    ),
    "large in bytes": (
        {"map": "Mask", "mask": {"shape": [2**15, 2**15], "dtype": "complex128"}},
        "`spec.mask.shape` makes 17179869184 bytes",
    ),
    "large and empty": (
        {"map": "Mask", "mask": {"shape": [2**39, 2**39, 0], "dtype": "bool"}},
        "`spec.mask.shape` makes",
    ),
    "large together": (
        {
            "map": "Several",
            "links": [
                {"map": "Mask", "mask": {"shape": [n], "dtype": "bool"}}
                for n in (2, 2**31)
            ],
        },
        r"`spec.links\[1\].mask.shape` makes 2147483650 bytes",
    ),
    "deep": (deep(100_000), "`spec` is nested deeper than 32"),
    "long": ({"map": "Several", "links": 20_000 * [SKEW]}, "at most 16384"),
    "a type that is nowhere": (
        {"map": "Unresolved", "dim": 0},
        "`spec`: the annotations of `Unresolved` cannot be read: .*Nowhere",
    ),
    "key of another type": ({"map": "Skew", 3: 4}, "no argument `3`"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_spec_that_describes_no_map_is_refused(name):
    spec, message = REFUSED[name]
    with pytest.raises(SpecError, match=message) as caught:
        read(spec)
    assert isinstance(caught.value, HoldfastError)
    assert isinstance(caught.value, ValueError)
    assert len(str(caught.value)) < 1500


def test_what_is_just_allowed_is_read():
    """Negative control of the limits."""
    assert isinstance(read(deep(15)), Several)
    assert len(read({"map": "Several", "links": 2000 * [SKEW]}).links) == 2000
    assert read({"map": "WeightNorm", "dim": 2**40}).dim == 2**40


class Refusing(Parametrization):
    """Has a constructor that fails."""

    def __init__(self, count: int = 0) -> None:
        super().__init__()
        self.count = 1 // count


def test_a_constructor_that_fails_is_named():
    message = "`spec`: `Refusing` refuses its arguments: .*zero"
    with pytest.raises(SpecError, match=message):
        maps.from_spec({"map": "Refusing", "count": 0}, also=[Refusing])


def specs_within(data: Any) -> list[dict[str, Any]]:
    """Return every dictionary of a spec that describes a map, a set or a tensor."""
    below = data.values() if isinstance(data, dict) else data
    if not isinstance(data, dict | list):
        return []
    inner = [found for value in below for found in specs_within(value)]
    return [data, *inner] if isinstance(data, dict) else inner


def hostile(spec: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield what must be refused in the place of a spec, and in each place within."""
    for i in range(len(specs_within(spec))):
        for name, change in CHANGES.items():
            twin = copy.deepcopy(spec)
            place = specs_within(twin)[i]
            if change(place):
                yield f"{name} in place {i}", twin


def _renamed(place: dict[str, Any]) -> bool:
    kind = next((kind for kind in ("map", "set") if kind in place), "dtype")
    place[kind] += "y"
    return True


def _extended(place: dict[str, Any]) -> bool:
    place["training"] = False
    return True


def _retyped(place: dict[str, Any]) -> bool:
    """Replace every argument by what no argument is."""
    keys = place.keys() - {"map", "set", "dtype"}
    place.update({key: {"a": [1.5, None]} for key in keys})
    return bool(keys)


def _enlarged(place: dict[str, Any]) -> bool:
    """Make numbers and shapes absurdly large."""
    keys = [k for k, v in place.items() if type(v) in (int, float)]
    place.update(dict.fromkeys(keys, 10**30))
    if "shape" in place:
        place["shape"] = [2**40, *place["shape"]]
    return bool(keys) or "shape" in place


CHANGES = {
    "another name": _renamed,
    "an argument too many": _extended,
    "another type": _retyped,
    "an absurd size": _enlarged,
}


@pytest.mark.parametrize("case", PLAIN, ids=str)
def test_no_spec_of_the_table_can_be_spoilt_unnoticed(case):
    for link in case.make(case.shapes[0]):
        spoilt = dict(hostile(link.spec()))
        assert len(spoilt) >= 2
        for name, spec in spoilt.items():
            with pytest.raises(SpecError):
                pytest.fail(f"{name}: {read(spec)} from {spec}")


NAMES = st.sampled_from([*maps.__all__, *(cls.__name__ for cls in OWN), "Nothing"])
KEYS = st.sampled_from(
    ["map", "set", "map_", "dim", "mask", "shape", "dtype", "links", "dims", "inside"]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from([*sets.__all__, "bool", "float32", "cayley"])
)
JSON = st.recursive(
    SCALARS,
    lambda below: (
        st.lists(below, max_size=3)
        | st.dictionaries(KEYS | st.text(max_size=5), below, max_size=4)
        | st.fixed_dictionaries({"map": NAMES}, optional={"dim": below, "map_": below})
    ),
    max_leaves=12,
)


@given(JSON)
def test_arbitrary_data_raises_nothing_else(spec):
    with contextlib.suppress(SpecError):
        assert isinstance(read(spec), Parametrization)


@given(st.sampled_from(["dim", "mask", "upper", "eps", "orthogonal_map"]), JSON)
def test_arbitrary_arguments_raise_nothing_else(key, value):
    """Each map of the library with one argument that may be anything."""
    for name in maps.__all__:
        with contextlib.suppress(SpecError):
            maps.from_spec({"map": name, key: value})


def test_another_error_would_be_seen():
    """Negative control."""
    table = {"map": "Exiting"}
    with pytest.raises(KeyboardInterrupt), contextlib.suppress(SpecError):
        maps.from_spec(table, also=[Exiting])


class Exiting(Parametrization):
    def __init__(self) -> None:
        raise KeyboardInterrupt


def test_no_tensor_is_made_before_its_size_is_checked(monkeypatch):
    def zeros(*args: object, **kwargs: object) -> Tensor:
        raise AssertionError("made")

    monkeypatch.setattr(torch, "zeros", zeros)
    with pytest.raises(AssertionError, match="made"):
        read({"map": "Mask", "mask": {"shape": [2], "dtype": "bool"}})
    with pytest.raises(SpecError):
        read({"map": "Mask", "mask": {"shape": [2**32], "dtype": "bool"}})


def test_a_number_beyond_the_type_is_refused():
    bound = {"shape": [2], "dtype": "float16", "values": [1e9, 1.0]}
    with pytest.raises(SpecError, match="too large for torch.float16"):
        maps.from_spec({"map": "Softplus", "bound": bound})
