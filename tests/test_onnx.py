"""X7: parametrized models as ONNX, by torch's exporter, and as other graphs."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import holdfast
from holdfast import linalg, maps
from holdfast.linalg.portable import portable_exponential, portable_upper_inverse
from holdfast.linalg.tracing import exported_to_onnx

onnx_reference = pytest.importorskip("onnx.reference")
pytest.importorskip("onnxscript")

# torch's exporter and its packages warn of each other
pytestmark = pytest.mark.filterwarnings("ignore")

KINDS = ("matrix_exp", "cayley", "householder", "thin_cayley", "thin_matrix_exp")


def disturbed(model):
    """Take every coordinate away from where it starts, where maps are simple."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape) / 8)
    return model.eval()


def run(model, x, *, optimize=False):
    """Export a model, and compute what the graph makes of an input.

    The exporter's optimizer computes what depends on no input, which leaves nothing of
    the maps; without it they are in the graph.
    """
    program = torch.onnx.export(
        model, (x,), dynamo=True, verbose=False, optimize=optimize
    )
    graph = onnx_reference.ReferenceEvaluator(program.model_proto)
    (y,) = graph.run(None, {graph.input_names[0]: x.numpy()})
    return torch.tensor(y), program.model_proto.graph


def operations(graph):
    return {node.op_type for node in graph.node}


def orthogonal(layer, kind, **choices):
    return holdfast.orthogonal(layer, orthogonal_map=kind, **choices)


def square_tall_and_wide(kind):
    return disturbed(
        nn.Sequential(
            orthogonal(nn.Linear(6, 6), kind, use_trivialization=False),
            orthogonal(nn.Linear(6, 10), kind),
            nn.Tanh(),
            orthogonal(nn.Linear(10, 4), kind),
        )
    )


@pytest.mark.parametrize("kind", KINDS)
def test_X7_every_orthogonal_map_exports_to_onnx(kind):
    model, x = square_tall_and_wide(kind), torch.randn(3, 6)
    y, graph = run(model, x)
    assert_close(y, model(x), rtol=0, atol=1e-5)
    assert "MatMul" in operations(graph)
    held = {tensor.name for tensor in graph.initializer}
    assert "0.parametrizations.weight.original" in held


def test_X7_maps_around_a_moved_base_and_of_kernels_export_to_onnx():
    conv = holdfast.orthogonal(nn.Conv1d(2, 4, 3), axes=0)
    linear = holdfast.orthogonal(nn.Linear(4, 8))
    linear.parametrizations.weight.rebase_()
    deep = nn.Linear(8, 8)
    for map_ in (maps.Skew(), maps.MatrixExp()):
        holdfast.register_parametrization(deep, "weight", map_)
    subspace = nn.Linear(8, 3)
    holdfast.register_parametrization(subspace, "weight", maps.Horizontal())
    model = nn.Sequential(conv, nn.Flatten(), linear, deep, subspace)
    model, x = disturbed(model), torch.randn(3, 2, 3)
    y, _ = run(model, x)
    assert_close(y, model(x), rtol=0, atol=1e-5)


def test_X7_weight_and_spectral_norm_export_to_onnx():
    layers = (
        holdfast.weight_norm(nn.Linear(4, 4)),
        holdfast.spectral_norm(nn.Linear(4, 4)),
    )
    model, x = disturbed(nn.Sequential(*layers)), torch.randn(3, 4)
    y, _ = run(model, x)
    assert_close(y, model(x), rtol=0, atol=1e-5)


def test_X7_a_folded_model_has_nothing_but_its_layers_in_onnx():
    model, x = square_tall_and_wide("cayley"), torch.randn(3, 6)
    with holdfast.folded(model):
        y, graph = run(model, x, optimize=True)
    assert_close(y, model(x), rtol=0, atol=1e-5)
    assert operations(graph) == {"Gemm", "Tanh"}


@pytest.mark.parametrize("kind", KINDS)
def test_X7_every_orthogonal_map_exports_and_traces(kind):
    model, x = square_tall_and_wide(kind), torch.randn(3, 6)
    exported = torch.export.export(model, (x,))
    assert_close(exported.module()(x), model(x), rtol=0, atol=1e-5)
    assert any("original" in name for name, _ in exported.named_parameters())
    traced = torch.jit.trace(model, (x,))
    assert_close(traced(x), model(x), rtol=0, atol=1e-5)


# ---- What stands in for LAPACK ------------------------------------------------------


def test_no_export_is_running_outside_of_one():
    assert not exported_to_onnx()


@pytest.mark.parametrize("norm", [1e-8, 1e-3, 1.0, 30.0, 1000.0])
@pytest.mark.parametrize("shape", [(1, 1), (5, 5), (2, 3, 3), (0, 3, 3)])
def test_the_portable_exponential_is_the_exponential(shape, norm):
    X = torch.randn(shape, dtype=torch.float64)
    A = X - X.mT  # another one of norm 1000 would overflow
    A = A * (norm / torch.linalg.matrix_norm(A, keepdim=True).clamp_min(1e-300))
    expected = linalg.skew_exponential(A)
    found = portable_exponential(A)
    assert_close(found, expected, rtol=0, atol=1e-12 + 2e-15 * norm * 100)
    assert_close(found - expected, torch.zeros_like(A), rtol=0, atol=1e-10)


def test_the_portable_exponential_of_general_matrices_is_torchs():
    A = torch.randn(4, 6, 6, dtype=torch.float64)
    assert_close(portable_exponential(A), torch.matrix_exp(A), rtol=1e-12, atol=0)
    single = portable_exponential(A.float())
    assert single.dtype == torch.float32
    assert_close(single, torch.matrix_exp(A).float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(0, 0), (1, 1), (2, 2), (7, 7), (3, 16, 16)])
def test_the_portable_inverse_is_that_of_the_upper_triangle(shape):
    S = torch.rand(shape, dtype=torch.float64).triu(1)
    S = S + 2 * torch.eye(shape[-1], dtype=torch.float64)
    found = portable_upper_inverse(S)
    identity = torch.eye(shape[-1], dtype=torch.float64).expand(shape)
    assert_close(found @ S, identity, rtol=0, atol=1e-13)
    assert_close(found, found.triu())
