"""The demo of the copying memory: task, networks, training, table, pictures."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from holdfast import cli
from holdfast.demo.copying import training
from holdfast.demo.copying.network import Kind, build_network, rotations
from holdfast.demo.copying.settings import FULL, QUICK, Settings
from holdfast.demo.copying.summary import STYLES, figures, outcome
from holdfast.demo.copying.task import (
    BLANK,
    LETTERS,
    MARKER,
    SYMBOLS,
    baseline,
    cross_entropy,
    recall,
    sequences,
)
from holdfast.demo.copying.training import train, train_all
from support import Log

TINY = Settings(lengths=(5,), updates=3, hidden=7, batch=4)


@pytest.fixture(scope="module")
def runs():
    return train_all(QUICK, Log())


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# Task


def test_letters_come_first_and_are_asked_for_last():
    inputs, answers = sequences(30, 50, generator())
    assert inputs.shape == answers.shape == (30 + 2 * SYMBOLS, 50)
    letters = inputs[:SYMBOLS]
    assert letters.unique().tolist() == list(range(1, LETTERS + 1))
    assert torch.equal(answers[-SYMBOLS:], letters)
    assert (answers[:-SYMBOLS] == BLANK).all()
    # The marker is the last input before the first letter is due.
    assert (inputs[-SYMBOLS - 1] == MARKER).all()
    rest = torch.cat([inputs[SYMBOLS : -SYMBOLS - 1], inputs[-SYMBOLS:]])
    assert (rest == BLANK).all()


def test_sequences_are_new_every_time():
    source = generator()
    first, second = (sequences(3, 8, source)[0] for _ in range(2))
    assert not torch.equal(first, second)
    assert torch.equal(sequences(3, 8, generator())[0], first)


def test_the_baseline_is_the_loss_of_guessing_letters_when_it_is_time():
    _, answers = sequences(100, 20, generator())
    logits = torch.full((*answers.shape, LETTERS + 1), -math.inf)
    logits[:-SYMBOLS, :, BLANK] = 0
    logits[-SYMBOLS:, :, 1:] = 0
    assert cross_entropy(logits, answers).item() == pytest.approx(baseline(100))
    assert baseline(100) == pytest.approx(0.1733, abs=1e-4)
    assert baseline(1000) == pytest.approx(0.0204, abs=1e-4)


def test_recall_counts_the_last_steps_alone():
    _, answers = sequences(30, 20, generator())
    right = torch.nn.functional.one_hot(answers, LETTERS + 1).float()
    assert recall(right, answers) == 1
    blanks = torch.zeros_like(right)
    blanks[..., BLANK] = 1
    assert recall(blanks, answers) == 0, "a net that says nothing is mostly right"
    half = torch.cat([blanks[: -SYMBOLS // 2], right[-SYMBOLS // 2 :]])
    assert recall(half, answers) == 0.5


# Networks


@pytest.mark.parametrize("hidden", [2, 7, 190])
def test_the_start_is_a_rotation(hidden):
    start = rotations(hidden)
    assert start.shape == (hidden, hidden)
    assert_close(start @ start.T, torch.eye(hidden))
    assert torch.linalg.det(start.double()) == pytest.approx(1, rel=1e-5)


def test_the_kernel_of_a_new_network_is_the_start():
    layer = build_network(Kind.ORTHOGONAL, TINY).layer
    blocks = layer.recurrent.weight.detach()[:6, :6].clone()
    for i in range(0, 6, 2):
        blocks[i : i + 2, i : i + 2] = 0
    assert blocks.abs().max() < 1e-6


def test_the_kernel_is_computed_once_for_all_steps():
    network = build_network(Kind.ORTHOGONAL, TINY)
    calls = []
    link = network.layer.recurrent.parametrizations["weight"][0]
    link.register_forward_hook(lambda *_: calls.append(1))
    network(sequences(9, 2, generator())[0]).sum().backward()
    assert len(calls) == 1


def test_the_networks_have_equally_many_recurrent_weights():
    tanh = build_network(Kind.TANH, FULL).layer.weight_hh_l0
    lstm = build_network(Kind.LSTM, FULL).layer.weight_hh_l0
    assert tanh.numel() == lstm.numel() == FULL.hidden**2


@pytest.mark.parametrize("kind", Kind)
def test_an_answer_depends_on_the_past_alone(kind):
    network = build_network(kind, TINY)
    inputs, _ = sequences(5, 3, generator())
    changed = inputs.clone()
    changed[4] = MARKER
    before, after = network(inputs), network(changed)
    assert torch.equal(before[:4], after[:4])
    assert not torch.equal(before[4:], after[4:])


# Training


def test_the_orthogonal_network_remembers_and_the_others_do_not(runs):
    orthogonal, tanh, lstm = runs
    assert orthogonal.recall > 0.95
    assert orthogonal.loss < 0.1 * baseline(30)
    for other in (tanh, lstm):
        assert other.recall < 0.25
        assert other.loss > 0.9 * baseline(30)


def test_without_the_constraint_the_same_network_does_not_remember(monkeypatch):
    def shrunk(kind, settings):
        network = build_network(kind, settings)
        kernel = 0.8 * network.layer.recurrent.weight.detach()
        del network.layer.recurrent
        network.layer.recurrent = torch.nn.Linear(settings.hidden, settings.hidden)
        network.layer.recurrent.weight.data = kernel
        return network

    monkeypatch.setattr(training, "build_network", shrunk)
    run = train(Kind.ORTHOGONAL, 30, replace(QUICK, updates=40), Log())
    assert run.recall < 0.3


def test_the_kernel_stays_orthogonal(monkeypatch):
    built = []
    monkeypatch.setattr(
        training,
        "build_network",
        lambda *_: built.append(build_network(*_)) or built[0],
    )
    train(Kind.ORTHOGONAL, 5, replace(TINY, hidden=20, updates=30), Log())
    kernel = built[0].layer.recurrent.weight.detach()
    assert_close(kernel.T @ kernel, torch.eye(20), atol=1e-5, rtol=0)
    assert not torch.allclose(
        kernel, build_network(*built_from()).layer.recurrent.weight
    )


def built_from():
    return Kind.ORTHOGONAL, replace(TINY, hidden=20, updates=30)


def test_the_same_seed_gives_the_same_runs():
    first, again, other = (
        [replace(run, seconds=0.0) for run in train_all(replace(TINY, seed=s), Log())]
        for s in (3, 3, 4)
    )
    assert first == again
    assert first != other


def test_every_length_is_trained_with_every_network():
    runs = train_all(replace(TINY, lengths=(2, 5)), Log())
    assert [(run.length, run.kind) for run in runs] == [
        (length, kind) for length in (2, 5) for kind in Kind
    ]
    assert all(len(run.losses) == len(run.recalls) == TINY.updates for run in runs)


# Command


def test_the_table_shows_the_figures_of_the_runs(runs):
    run = replace(runs[0], length=100, loss=0.012345, recall=0.9876, seconds=7.77)
    assert figures(run) == ("100", "0.01235", "0.17329", "98.8 %", "7.8")


def test_curves_are_those_of_the_runs(runs):
    two = [*runs, *(replace(run, length=9) for run in runs)]
    pictures = outcome(two).pictures
    assert len(pictures) == 2
    for figure in pictures.values():
        figure.draw_without_rendering()
        assert [ax.get_title() for ax in figure.axes] == ["T = 30", "T = 9"]
        assert all(ax.get_xlabel() for ax in figure.axes)
        assert figure.axes[0].get_ylabel()
    (ax, _) = pictures["copying-loss.png"].axes
    for run, line in zip(runs, ax.get_lines(), strict=False):
        assert tuple(line.get_ydata()) == run.losses
        assert line.get_label() == run.kind.value


def test_lines_can_be_told_apart_without_colors():
    assert len({style.dashes for style in STYLES.values()}) == len(Kind)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], FULL),
        (["--quick"], QUICK),
        (["--quick", "--length=7"], replace(QUICK, lengths=(7,))),
        (
            ["--length=7", "--length=8", "--updates=2", "--seed=1"],
            replace(FULL, lengths=(7, 8), updates=2, seed=1),
        ),
    ],
)
def test_arguments_reach_the_training(arguments, expected, tmp_path, monkeypatch):
    seen = []

    def raises(settings, listener):
        seen.append(settings)
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "train_all", raises)
    assert cli.main(["demo", "copying", *arguments, f"--output={tmp_path}"]) == 130
    assert seen == [expected]


def test_a_run_prints_its_table_and_writes_pictures(capsys, tmp_path):
    arguments = ["--length=3", "--updates=2", "--hidden=4", f"--output={tmp_path}"]
    assert cli.main(["demo", "copying", *arguments]) == 0
    out = capsys.readouterr().out
    assert "orthogonal RNN  3" in out
    assert {p.name for p in tmp_path.iterdir()} == {
        "copying-loss.png",
        "copying-recall.png",
    }
