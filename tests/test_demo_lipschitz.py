"""The demo of the certified classifier: proofs, attacks, table, picture."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import holdfast
from holdfast import cli
from holdfast.demo.digits.data import load_split
from holdfast.demo.lipschitz import training
from holdfast.demo.lipschitz.network import (
    Kind,
    MaxMin,
    build_network,
    linear_layers,
    lipschitz_bound,
)
from holdfast.demo.lipschitz.robustness import certified_radii, is_fooled, margins
from holdfast.demo.lipschitz.settings import FULL, QUICK
from holdfast.demo.lipschitz.summary import figures, outcome
from holdfast.demo.lipschitz.training import examine, flat, run_all, train

ORTHOGONAL, FREE = Kind


class Silence:
    def __init__(self):
        self.announced = self.heard = 0

    def started(self, name, updates):
        self.announced += updates

    def updated(self, updates=1):
        self.heard += updates

    def tested(self, result):
        pass


@pytest.fixture(scope="module")
def runs():
    return run_all(QUICK, Silence())


@pytest.fixture(scope="module")
def trained():
    """Return a network per kind, in double precision, and the test images."""
    images, labels = flat(load_split(0)[0])
    networks = {kind: train(kind, QUICK, images, labels, Silence()) for kind in Kind}
    for network in networks.values():
        network.double().requires_grad_(False)
    images, labels = flat(load_split(0)[1])
    return networks, images.double(), labels


def attack(network, images, labels, radii, restarts=2, steps=15):
    return is_fooled(
        network,
        images,
        labels,
        radii,
        restarts,
        steps,
        torch.Generator().manual_seed(0),
    )


# Networks


def test_max_min_sorts_pairs():
    values = torch.tensor([[1.0, 2.0, 4.0, 3.0]])
    assert MaxMin()(values).tolist() == [[2, 1, 4, 3]]


def test_max_min_never_stretches_a_distance():
    generator = torch.Generator().manual_seed(0)
    one, other = torch.randn(2, 500, 8, generator=generator)
    before = (one - other).norm(dim=1)
    after = (MaxMin()(one) - MaxMin()(other)).norm(dim=1)
    assert (after <= before * (1 + 1e-6)).all()
    assert (after < 0.99 * before).any(), "some pairs have to be swapped"


def test_orthogonal_weights_have_constant_one_and_keep_it(trained):
    networks, *_ = trained
    assert lipschitz_bound(build_network(ORTHOGONAL, QUICK)) == pytest.approx(
        1, abs=1e-5
    )
    assert lipschitz_bound(networks[ORTHOGONAL]) == pytest.approx(1, abs=1e-6)
    assert lipschitz_bound(networks[FREE]) > 2


def test_odd_layers_get_one_unit_more():
    network = build_network(FREE, replace(QUICK, hidden=5))
    assert [layer.out_features for layer in linear_layers(network)] == [6, 6, 10]


def test_both_networks_have_equally_many_units():
    shapes = [
        [tuple(layer.weight.shape) for layer in linear_layers(build_network(k, QUICK))]
        for k in Kind
    ]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("kind", Kind)
def test_no_distance_grows_by_more_than_the_bound(kind, trained):
    networks, images, _ = trained
    network, bound = networks[kind], lipschitz_bound(networks[kind])
    change = 0.3 * torch.randn(
        images.shape, generator=torch.Generator().manual_seed(0), dtype=images.dtype
    )
    growth = (network(images + change) - network(images)).norm(dim=1)
    assert (growth <= bound * change.norm(dim=1)).all()
    assert growth.max() > 0.01 * bound * change.norm(dim=1).min()


# Proofs and attacks


def test_margins_by_hand():
    logits = torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, 1.0]])
    assert_close(margins(logits, torch.tensor([0, 2])), torch.tensor([1.0, -4.0]))


def linear_classifier():
    """Two classes, apart at the first coordinate 0: its radius is known exactly."""
    network = nn.Linear(2, 2, bias=False).double()
    weight = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    network.weight = nn.Parameter(weight / math.sqrt(2), requires_grad=False)
    return network


def test_proof_and_attack_meet_where_the_radius_is_known():
    network = linear_classifier()
    assert lipschitz_bound(network) == pytest.approx(1)
    images = torch.tensor([[0.5, 3.0], [2.0, -1.0], [-1.0, 0.0]], dtype=torch.float64)
    labels = torch.zeros(3, dtype=torch.long)
    radii = certified_radii(network, images, labels, 1.0)
    # The distance to the other class, and 0 where the answer is wrong to begin with.
    assert_close(radii, torch.tensor([0.5, 2.0, 0.0], dtype=torch.float64))
    assert attack(network, images, labels, 0.999 * radii).tolist() == [
        False,
        False,
        True,
    ]
    assert attack(network, images, labels, 1.001 * radii).all()


def test_an_attack_stays_within_its_radius():
    seen, network = [], linear_classifier()
    network.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].detach()))
    images, labels = torch.zeros(4, 2).double(), torch.zeros(4, dtype=torch.long)
    radii = torch.tensor([0.0, 0.1, 1.0, 3.0], dtype=torch.float64)
    attack(network, images, labels, radii, restarts=3)
    lengths = torch.stack(seen).norm(dim=2)
    assert (lengths <= radii * (1 + 1e-12)).all()
    assert_close(lengths.amax(0), radii)


@pytest.mark.parametrize("kind", Kind)
def test_no_attack_refutes_a_proof(kind, trained):
    networks, images, labels = trained
    network = networks[kind]
    with holdfast.cached(network):
        radii = certified_radii(network, images, labels, lipschitz_bound(network))
        fooled = attack(network, images, labels, radii)
    assert not (fooled & (radii > 0)).any()


@pytest.mark.parametrize(("kind", "share"), [(ORTHOGONAL, 1 / 3), (FREE, 1 / 30)])
def test_an_attack_refutes_the_proof_of_a_wrong_constant(kind, share, trained):
    networks, images, labels = trained
    network = networks[kind]
    wrong = share * lipschitz_bound(network)
    found = examine(network, images, labels, wrong, QUICK, Silence())
    assert found.violations > 0.1 * found.proofs > 0


def test_the_unconstrained_network_is_not_one_that_never_stretches(trained):
    networks, images, labels = trained
    found = examine(networks[FREE], images, labels, 1.0, QUICK, Silence())
    assert found.violations > 0


# Runs


def test_what_is_proven_holds_and_proves_something(runs):
    orthogonal, free = (run.findings for run in runs)
    for found in (orthogonal, free):
        assert found.radii == (0.0, *QUICK.radii)
        assert found.violations == 0 < found.proofs
        pairs = zip(found.certified, found.attacked, strict=True)
        assert all(proven <= attacked for proven, attacked in pairs)
        assert found.certified[0] == found.attacked[0]
        assert list(found.certified) == sorted(found.certified, reverse=True)
    assert orthogonal.certified[0] > 0.9
    assert orthogonal.certified[1] > 0.7
    assert free.certified[2] < 0.05 < 0.5 < orthogonal.attacked[1]


def test_the_listener_hears_of_everything():
    listener = Silence()
    run_all(replace(QUICK, epochs=1, hidden=4, steps=2), listener)
    assert listener.announced == listener.heard


def test_the_same_seed_gives_the_same_runs():
    tiny = replace(QUICK, epochs=1, hidden=4, steps=2)
    first, again, other = (
        [replace(run, seconds=0.0) for run in run_all(replace(tiny, seed=s), Silence())]
        for s in (3, 3, 4)
    )
    assert first == again
    assert first != other


def test_the_table_shows_the_figures_of_the_run(runs):
    run = replace(
        runs[0],
        bound=1.2345,
        seconds=7.77,
        findings=replace(
            runs[0].findings,
            radii=(0.0, 0.5),
            certified=(0.9, 0.1234),
            attacked=(0.95, 0.5),
            proofs=20,
            violations=3,
        ),
    )
    assert figures(run) == [
        (run.kind.value, "1.234", "0", "90.0 %", "95.0 %", "3 of 20", "7.8"),
        ("", "", "0.5", "12.3 %", "50.0 %", "", ""),
    ]


def test_curves_are_those_of_the_runs(runs):
    (figure,) = outcome(runs).pictures.values()
    figure.draw_without_rendering()
    (ax,) = figure.axes
    assert ax.get_xlabel()
    assert ax.get_ylabel()
    drawn = {line.get_label(): list(line.get_ydata()) for line in ax.get_lines()}
    for run in runs:
        proven = drawn[f"{run.kind.value}, proven"]
        assert proven == [100 * share for share in run.findings.certified]
        attacked = drawn[f"{run.kind.value}, under attack"]
        assert attacked == [100 * share for share in run.findings.attacked]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], FULL),
        (["--quick"], QUICK),
        (["--epochs=2", "--restarts=3"], replace(FULL, epochs=2, restarts=3)),
    ],
)
def test_arguments_reach_the_training(arguments, expected, tmp_path, monkeypatch):
    seen = []

    def raises(settings, listener):
        seen.append(settings)
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "run_all", raises)
    assert cli.main(["demo", "lipschitz", *arguments, f"--output={tmp_path}"]) == 130
    assert seen == [expected]


def test_a_run_prints_its_table_and_writes_a_picture(capsys, tmp_path):
    arguments = ["--quick", "--epochs=1", "--steps=2", f"--output={tmp_path}"]
    assert cli.main(["demo", "lipschitz", *arguments]) == 0
    assert "orthogonal weights" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["lipschitz-accuracy.png"]
