"""The demo of pruning: patterns, trainings, table, pictures."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from matplotlib import image

from holdfast import cli
from holdfast.demo.digits.classifier import layers
from holdfast.demo.prune.pictures import draw_pictures
from holdfast.demo.prune.pruning import (
    ANYWHERE,
    PATTERNS,
    SCHEDULED,
    WAYS,
    Pattern,
    Training,
    prune_all,
    scheduled,
    zeros,
)
from holdfast.demo.prune.settings import QUICK
from holdfast.demo.prune.summary import _NOTES, outcome, row
from support import Log

GROUPED = [way for way in WAYS if way.label != ANYWHERE]
SETTINGS = replace(QUICK, epochs=2)


def training(**changed):
    log = Log()
    log.started("here", 0)
    return Training(replace(SETTINGS, **changed), 0, log)


@pytest.fixture(scope="module")
def log():
    return Log()


@pytest.fixture(scope="module")
def results(log):
    return prune_all(replace(SETTINGS, runs=2), log)


def most_in_a_group(weight, m):
    """The largest number of nonzero weights in any group, counted without holdfast."""
    rows = weight.detach().tolist()
    return max(
        sum(value != 0 for value in row[start : start + m])
        for row in rows
        for start in range(0, len(row), m)
    )


# Patterns


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
@pytest.mark.parametrize("way", GROUPED, ids=lambda way: way.label)
def test_the_pattern_holds_in_every_group_of_every_layer(way, pattern):
    network = way.prune(training(), pattern)
    for layer in layers(network):
        assert most_in_a_group(layer.weight, pattern.m) == pattern.n
    assert zeros(network) == pytest.approx(pattern.sparsity)


def test_zeros_anywhere_break_the_pattern():
    (anywhere,) = (way for way in WAYS if way.label == ANYWHERE)
    network = anywhere.prune(training(), Pattern(2, 8))
    assert zeros(network) == pytest.approx(0.75)
    assert max(most_in_a_group(layer.weight, 8) for layer in layers(network)) > 4


def test_a_schedule_goes_through_the_patterns_between():
    one = training()
    scheduled(one, Pattern(2, 8))
    rises = sorted(set(one.sparsities))
    assert one.sparsities == sorted(one.sparsities)
    assert all(8 * share == pytest.approx(round(8 * share)) for share in rises)
    assert len(rises) > 3
    assert rises[-1] == pytest.approx(0.75)


def test_the_dense_network_is_what_one_shot_prunes_and_stays_dense(results):
    one = training()
    before = [layer.weight.clone() for layer in layers(one.dense)]
    network = WAYS[0].prune(one, Pattern(1, 8))
    for layer, kept, W in zip(layers(network), layers(one.dense), before, strict=True):
        assert torch.equal(kept.weight, W)
        pruned = layer.weight
        assert torch.equal(pruned[pruned != 0], W[pruned != 0])
        groups = W.abs().unflatten(1, (-1, 8))
        largest = pruned.abs().unflatten(1, (-1, 8)).amax(-1)
        assert torch.equal(largest, groups.amax(-1))


# Trainings


def test_all_start_alike_and_leave_torchs_generator_alone():
    before = torch.get_rng_state()
    first, second = (training().network()[1].weight for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, training(seed=1).network()[1].weight)
    assert torch.equal(torch.get_rng_state(), before)


def test_every_way_takes_the_same_number_of_steps(results, log):
    assert log.done == log.promised
    assert set(log.done) == {"dense", *(way.label for way in WAYS)}
    steps = training().digits.steps
    assert log.done["dense"] == 2 * steps
    for way in WAYS:
        assert log.done[way.label] == 2 * steps * len(PATTERNS)


def test_pruning_costs_accuracy_and_training_gives_it_back():
    settings = replace(QUICK, epochs=8)
    one = Training(settings, 0, training().digits.listener)
    dense = one.accuracy(one.dense)
    at_once = one.accuracy(WAYS[0].prune(one, Pattern(1, 8)))
    trained = one.accuracy(scheduled(one, Pattern(1, 8)))
    assert dense > 0.9
    assert at_once < dense - 0.2
    assert trained > at_once + 0.2


# Table and pictures


def test_the_results_are_complete(results):
    assert [r.way for r in results[:2]] == ["dense", WAYS[0].label]
    assert len(results) == 1 + len(WAYS) * len(PATTERNS)
    assert all(len(r.accuracies) == 2 for r in results)
    assert {r.holds for r in results if r.way != ANYWHERE and r.pattern} == {True}
    assert {r.holds for r in results if r.way == ANYWHERE} == {False}


def test_the_table_shows_means_and_whether_the_pattern_holds(results):
    there = [r for r in results if r.pattern == Pattern(2, 8)]
    there[0] = replace(there[0], accuracies=[0.5, 0.25])
    shown = row(Pattern(2, 8), there)
    assert shown[:4] == ("2:8", "75.0 %", "yes", "37.5 %")
    there[1] = replace(there[1], holds=False)
    assert row(Pattern(2, 8), there)[2] == "no"
    whole = outcome(results)
    assert {len(line) for line in whole.rows} == {len(whole.headings)}


def test_pictures_show_the_results(results):
    pictures = draw_pictures(results)
    reached, rise = pictures["prune-accuracy.png"].axes
    lines = {line.get_label(): line for line in reached.get_lines()}
    for way in WAYS:
        means = [100 * r.accuracy for r in results if r.way == way.label]
        assert list(lines[way.label].get_ydata()) == means
    ends = [line.get_ydata()[-1] for line in rise.get_lines()]
    assert ends == pytest.approx([100 * pattern.sparsity for pattern in PATTERNS])
    dense, grouped, *_ = pictures["prune-weights.png"].axes
    assert SCHEDULED in grouped.get_title()
    assert not dense.get_images()[0].get_array().mask.any()
    assert grouped.get_images()[0].get_array().mask.mean() == 0.75


def test_the_command_runs(tmp_path, capsys):
    arguments = ["demo", "prune", "--quick", "--epochs=2", f"--output={tmp_path}"]
    assert cli.main(arguments) == 0
    out = capsys.readouterr().out
    assert "1:16" in out
    assert "\N{HORIZONTAL ELLIPSIS}" not in out
    assert _NOTES in out, "no line was wrapped"
    assert len([*tmp_path.iterdir()]) == 2
    for path in tmp_path.iterdir():
        assert image.imread(path).std() > 0.02
