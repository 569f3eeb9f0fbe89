"""The demo of low-rank changes: what trains, what is kept, files, table, pictures."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from matplotlib import image

import holdfast
from holdfast import cli
from holdfast.demo.digits.classifier import Classifier, layers, network
from holdfast.demo.lora.adapting import (
    HIDDEN,
    RANKS,
    WAYS,
    adapt_all,
    file_sizes,
    load_trained,
    mean,
    merging_changes,
    mirrored,
    save_trained,
    trained,
    trained_base,
    without_adapters,
)
from holdfast.demo.lora.adapting import adapted as adapt
from holdfast.demo.lora.pictures import draw_pictures
from holdfast.demo.lora.settings import QUICK
from holdfast.demo.lora.summary import _NOTES, figures, outcome
from support import Log

FULL, LAST, *LORAS = WAYS
RANK_4 = LORAS[RANKS.index(4)]
SETTINGS = replace(QUICK, epochs=2)


def one_training(settings=SETTINGS, run=0):
    log = Log()
    log.started("here", 0)
    return Classifier(settings.seed, settings.seed + run, settings.epochs, log)


@pytest.fixture(scope="module")
def training():
    return one_training()


@pytest.fixture(scope="module")
def base(training):
    return trained_base(training)


@pytest.fixture(scope="module")
def adapted(training, base):
    return adapt(training, base, RANK_4)


@pytest.fixture(scope="module")
def log():
    return Log()


@pytest.fixture(scope="module")
def results(log):
    return adapt_all(replace(SETTINGS, runs=2), log)


# Adapting


def test_a_mirror_turns_columns_around():
    images = torch.arange(8.0).expand(2, 8, 8)
    assert torch.equal(mirrored(images)[0, 3], torch.arange(7.0, -1, -1))
    assert torch.equal(mirrored(mirrored(images)), images)


def test_the_frozen_base_is_untouched(base, adapted):
    for old, new in zip(layers(base), layers(adapted), strict=True):
        map_ = new.parametrizations.weight[0]
        assert torch.equal(map_.base, old.weight)
        assert torch.equal(new.bias, old.bias)
        change = (new.weight - old.weight).detach().double()
        assert 1 <= torch.linalg.matrix_rank(change, rtol=1e-5) <= 4


def test_fine_tuning_does_touch_it(training, base):
    tuned = adapt(training, base, FULL)
    for old, new in zip(layers(base), layers(tuned), strict=True):
        assert not torch.equal(new.weight, old.weight)
    last = adapt(training, base, LAST)
    same = [
        torch.equal(new.weight, old.weight)
        for old, new in zip(layers(base), layers(last), strict=True)
    ]
    assert same == [True, True, False]


@pytest.mark.parametrize("way", LORAS, ids=lambda way: way.label)
def test_the_factors_alone_are_trained(training, base, way):
    made = copy.deepcopy(base)
    way.prepare(made)
    sizes = [way.rank * sum(layer.weight.shape) for layer in layers(base)]
    assert sum(p.numel() for p in trained(made).values()) == sum(sizes)
    assert all(".original" in name for name in trained(made))
    with torch.no_grad():
        assert torch.equal(made(training.tested), base(training.tested))


def test_without_adapters_the_answers_are_those_of_the_base(training, base, adapted):
    with torch.no_grad():
        expected, changed = base(training.tested), adapted(training.tested)
        assert torch.equal(without_adapters(adapted)(training.tested), expected)
        assert torch.equal(adapted(training.tested), changed)
    assert not torch.allclose(changed, expected, atol=0.1)


def test_adapting_teaches_mirrored_digits(training, base, adapted):
    images = mirrored(training.tested)
    assert training.accuracy(base, training.tested) > 0.8
    assert training.accuracy(base, images) < 0.6
    assert training.accuracy(adapted, images) > training.accuracy(base, images) + 0.2


def test_all_ways_take_the_same_steps(results, log, training):
    assert log.done == log.promised
    assert set(log.done.values()) == {2 * training.steps}
    assert set(log.done) == {"digits as they are", *(way.label for way in WAYS)}


def test_the_same_seed_gives_the_same_network(base):
    again = trained_base(one_training())
    assert torch.equal(again[1].weight, base[1].weight)
    assert not torch.equal(trained_base(one_training(run=1))[1].weight, base[1].weight)


# Merging and files


def test_merging_keeps_the_answers_and_leaves_a_plain_model(training, adapted):
    assert merging_changes(adapted, training.tested) < 1e-5
    merged = holdfast.fold(copy.deepcopy(adapted))
    plain = network(HIDDEN)
    plain.load_state_dict(merged.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(plain(training.tested), adapted(training.tested))


def test_the_checkpoint_gives_the_same_answers(training, adapted, tmp_path):
    holdfast.save(adapted, tmp_path / "all.safetensors")
    again = holdfast.load(tmp_path / "all.safetensors", lambda: network(HIDDEN))
    with torch.no_grad():
        assert torch.equal(again(training.tested), adapted(training.tested))


def test_the_factors_alone_bring_the_answers_back(training, base, adapted, tmp_path):
    save_trained(adapted, tmp_path / "part.safetensors")
    other = copy.deepcopy(base)
    RANK_4.prepare(other)
    with torch.no_grad():
        expected = adapted(training.tested)
        assert not torch.allclose(other(training.tested), expected, atol=0.1)
        load_trained(other, tmp_path / "part.safetensors")
        assert torch.equal(other(training.tested), expected)


def test_files_are_as_large_as_what_is_in_them(base, adapted):
    part, whole = file_sizes(adapted)
    numbers = sum(p.numel() for p in trained(adapted).values())
    assert 4 * numbers < part < 4 * numbers + 2000
    plain, same = file_sizes(base)
    assert plain == pytest.approx(same, rel=0.01)
    assert part + plain == pytest.approx(whole, rel=0.02)


# Table and pictures


def test_figures_are_those_of_the_results(results):
    result = replace(
        results[-1],
        mirrored=[0.5, 0.25],
        plain=[1.0, 0.5],
        bytes_trained=1234,
        bytes_whole=56789,
        merging=2e-6,
    )
    expected = (f"{result.parameters}", "37.5 %", "75.0 %", "1.2", "56.8", "2e-06")
    assert figures(result) == expected
    assert figures(replace(result, merging=None))[-1] == "-"


def test_the_table_is_complete(results):
    shown = outcome(results, SETTINGS)
    assert [row[0] for row in shown.rows[1:]] == [way.label for way in WAYS]
    assert {len(row) for row in shown.rows} == {len(shown.headings)}
    assert results[0].parameters == results[0].bytes_trained == 0
    for result in results[-len(RANKS) :]:
        assert result.plain == results[0].plain
        assert result.change[result.way.rank] < 1e-5 * result.change[0]


def test_pictures_show_the_results(results):
    pictures = draw_pictures(results, SETTINGS)
    ax, _ = pictures["lora-accuracy.png"].axes
    (line,) = (line for line in ax.get_lines() if line.get_label() == "lora")
    means = [100 * mean(result.mirrored) for result in results[-len(RANKS) :]]
    assert line.get_ydata().tolist() == means
    (ax,) = pictures["lora-change.png"].axes
    lengths = {line.get_label(): len(line.get_xdata()) for line in ax.get_lines()}
    assert lengths == {FULL.label: 32, **{way.label: way.rank for way in LORAS}}
    shown = [ax.get_images()[0].get_array() for ax in pictures["lora-digits.png"].axes]
    assert (shown[0][:, ::-1] == shown[10]).all()


def test_the_command_runs(tmp_path, capsys):
    arguments = ["demo", "lora", "--quick", "--epochs=1", f"--output={tmp_path}"]
    assert cli.main(arguments) == 0
    out = capsys.readouterr().out
    assert "lora, rank 8" in out
    assert "\N{HORIZONTAL ELLIPSIS}" not in out
    assert _NOTES in out, "no line was wrapped"
    assert len([*tmp_path.iterdir()]) == 3
    for path in tmp_path.iterdir():
        assert image.imread(path).std() > 0.02
