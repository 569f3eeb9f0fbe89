"""Parametrized Lightning modules train, save, resume and keep their constraints."""

from __future__ import annotations

import logging
import warnings
from functools import partial

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils.data import DataLoader, TensorDataset

import holdfast
from holdfast import maps

pl = pytest.importorskip("lightning.pytorch", reason="Lightning is not installed")

from lightning.pytorch.callbacks import (  # noqa: E402
    EMAWeightAveraging,
    StochasticWeightAveraging,
)
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger  # noqa: E402
from lightning.pytorch.loggers.logger import DummyLogger  # noqa: E402

from holdfast.integrations.lightning import HoldfastCallback  # noqa: E402
from support import Drifts  # noqa: E402

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

pytestmark = [
    # What Lightning advises about speed, which matters nothing here.
    pytest.mark.filterwarnings("ignore:The '.*' does not have many workers"),
    # What it uses of torch, and torch would rather not have.
    pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.`"),
]


class Log(DummyLogger):
    """Keeps what is logged."""

    def __init__(self):
        super().__init__()
        self.figures = []

    def log_metrics(self, metrics, step=None):
        self.figures.append((step, dict(metrics)))


class Parts:
    """A small regression whose first weight is parametrized."""

    def __init__(self, link=None):
        super().__init__()
        self.losses = []
        self.build(link)

    def build(self, link=None):
        torch.manual_seed(0)
        first = nn.Linear(4, 4, bias=False)
        if link is None:
            holdfast.orthogonal(first)
        else:
            nn.init.orthogonal_(first.weight)
            holdfast.register_parametrization(first, "weight", link)
        self.net = nn.Sequential(first, nn.Tanh(), nn.Linear(4, 1))

    def training_step(self, batch, index):
        x, y = batch
        loss = (self.net(x) - y).square().mean()
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.05)


class Net(Parts, pl.LightningModule):
    pass


class Late(Net):
    """Parametrized when a trainer asks for the model."""

    def __init__(self):
        pl.LightningModule.__init__(self)
        self.losses, self.net = [], None

    def configure_model(self):
        if self.net is None:
            self.build()


class Validated(Net):
    """Says in each validation how far its weight is from orthogonal."""

    def validation_step(self, batch, index):
        self.log("worst", gap(self))


def loader():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(32, 4, generator=generator)
    return DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=4)


def trainer_of(folder, *callbacks, package=pl, **options):
    settings = {
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "log_every_n_steps": 8,
        "max_epochs": 2,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": folder,
    }
    return package.Trainer(callbacks=[*callbacks], **{**settings, **options})


def gap(net):
    Q = net.net[0].weight.detach().float()
    return (Q.T @ Q - torch.eye(4)).abs().max().item()


# ---- What is logged ------------------------------------------------------------------


def test_the_loggers_get_the_figures(tmp_path):
    log = Log()
    callback = HoldfastCallback(every=5, spectra_every=8)
    trainer = trainer_of(tmp_path, callback, logger=[log])
    trainer.fit(net := Net(), loader())
    figures = {step: row for step, row in log.figures if "residual/net.0.weight" in row}
    assert [*figures] == [1, 5, 10, 15]
    assert all(0 <= row["residual/net.0.weight"] < 1e-5 for row in figures.values())
    spectra = [step for step, row in log.figures if "condition/net.0.weight" in row]
    assert spectra == [1, 8, 16]
    assert trainer.callback_metrics["condition/net.0.weight"] == pytest.approx(
        1, abs=1e-4
    )
    assert gap(net) < 1e-5


def test_files_of_lightnings_own_loggers_have_them(tmp_path):
    csv, board = CSVLogger(tmp_path / "csv"), TensorBoardLogger(tmp_path / "board")
    trainer = trainer_of(tmp_path, HoldfastCallback(every=4), logger=[csv, board])
    trainer.fit(Net(), loader())
    text = next(tmp_path.glob("csv/**/metrics.csv")).read_text()
    assert "residual/net.0.weight" in text.splitlines()[0]
    assert any("tfevents" in path.name for path in tmp_path.glob("board/**/*"))


@pytest.mark.parametrize("accumulate", [1, 4])
def test_steps_are_those_of_the_optimizer(tmp_path, accumulate):
    log = Log()
    trainer = trainer_of(
        tmp_path,
        HoldfastCallback(every=1, spectra_every=0, schedules=[holdfast.Rebase]),
        logger=[log],
        accumulate_grad_batches=accumulate,
    )
    trainer.fit(net := Net(), loader())
    steps = [step for step, row in log.figures if "residual/net.0.weight" in row]
    # before the first step there is one look, at step 0
    first = 1 if accumulate == 1 else 0
    assert steps == [*range(first, 16 // accumulate + 1)]
    assert gap(net) < 1e-5


# ---- What is left alone --------------------------------------------------------------


def test_training_is_the_same_with_and_without(tmp_path):
    nets = [Net(), Net()]
    trainer_of(tmp_path, HoldfastCallback(every=1, spectra_every=1)).fit(
        nets[0], loader()
    )
    trainer_of(tmp_path).fit(nets[1], loader())
    assert nets[0].losses == nets[1].losses


# ---- What is lost --------------------------------------------------------------------


def test_training_stops_when_a_constraint_is_lost(tmp_path):
    callback = HoldfastCallback(every=3, lost="stop")
    trainer = trainer_of(tmp_path, callback)
    with pytest.warns(
        UserWarning, match="Training stops.*`net.0.weight` has a residual"
    ):
        trainer.fit(Net(Drifts()), loader())
    assert trainer.global_step == 1
    assert "`net.0.weight`" in callback.message


def test_or_warns_and_goes_on(tmp_path):
    trainer = trainer_of(tmp_path, HoldfastCallback(every=3))
    with pytest.warns(UserWarning, match="`net.0.weight` has a residual") as caught:
        trainer.fit(Net(Drifts()), loader())
    assert len([w for w in caught if "residual" in str(w.message)]) == 1
    assert trainer.global_step == 16


def test_a_constraint_that_is_kept_neither_stops_nor_warns(tmp_path):
    callback = HoldfastCallback(every=1, lost="stop")
    trainer = trainer_of(tmp_path, callback)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*residual")
        trainer.fit(Net(), loader())
    assert trainer.global_step == 16
    assert callback.message == ""


@pytest.mark.parametrize("elsewhere", [False, True])
def test_processes_agree_at_every_turn_also_where_a_look_is_left_out(
    tmp_path, elsewhere
):
    callback = HoldfastCallback(every=4, spectra_every=0, lost="stop", share=1e-9)
    trainer, asked = trainer_of(tmp_path, callback), []

    def reduce(lost, *, all):
        asked.append((trainer.global_step, lost, all))
        return elsewhere and trainer.global_step == 8

    trainer.strategy.reduce_boolean_decision = reduce
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(Net(), loader())
    steps = (1, 4, 8) if elsewhere else (1, 4, 8, 12, 16)
    assert asked == [(step, False, False) for step in steps]
    assert trainer.global_step == steps[-1]
    stopped = [w for w in caught if "lost in another process" in str(w.message)]
    assert len(stopped) == elsewhere


# ---- Schedules, and resuming ---------------------------------------------------------


def rebasing():
    return HoldfastCallback(schedules=[partial(holdfast.Rebase, every=3)], every=1)


@pytest.mark.parametrize("make", [Net, Late])
def test_a_run_that_is_resumed_goes_on_as_if_it_had_not_stopped(tmp_path, make):
    whole = make()
    trainer_of(tmp_path, rebasing(), max_epochs=2).fit(whole, loader())

    trainer = trainer_of(tmp_path, rebasing(), max_epochs=1)
    trainer.fit(make(), loader())  # 8 steps, which 3 does not divide
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    callback = rebasing()
    trainer_of(tmp_path, callback, max_epochs=2).fit(
        second := make(), loader(), ckpt_path=tmp_path / "half.ckpt"
    )
    assert second.losses == whole.losses[8:]
    assert torch.equal(second.net[0].weight, whole.net[0].weight)
    assert callback.state_dict() == {"schedules": {"0.0": {"steps": 16}}}
    assert gap(second) < 1e-5


def test_without_its_state_a_schedule_would_go_another_way(tmp_path):  # the control
    whole = Net()
    trainer_of(tmp_path, rebasing(), max_epochs=2).fit(whole, loader())
    trainer = trainer_of(tmp_path, rebasing(), max_epochs=1)
    trainer.fit(Net(), loader())
    trainer.save_checkpoint(path := tmp_path / "half.ckpt")
    checkpoint = torch.load(path, weights_only=False)
    for state in checkpoint["callbacks"].values():
        state["schedules"] = {}
    torch.save(checkpoint, path)
    trainer_of(tmp_path, rebasing(), max_epochs=2).fit(
        second := Net(), loader(), ckpt_path=path
    )
    assert second.losses != whole.losses[8:]


@pytest.mark.parametrize("make", [Net, Late])
def test_a_checkpoint_is_loaded_without_a_trainer(tmp_path, make):
    trainer = trainer_of(tmp_path, rebasing())
    trainer.fit(net := make(), loader())
    trainer.save_checkpoint(path := tmp_path / "net.ckpt")
    again = make.load_from_checkpoint(path)
    assert torch.equal(again.net[0].weight, net.net[0].weight)


def test_sparsity_rises_and_goes_on_rising(tmp_path):
    def net():
        return Net(maps.GradualTopK(0.75, steps=16))

    def zeros(net):
        return int((net.net[0].weight == 0).sum())

    callback = partial(HoldfastCallback, schedules=[holdfast.Sparsify])
    trainer = trainer_of(tmp_path, callback(), max_epochs=1)
    trainer.fit(first := net(), loader())
    assert 0 < zeros(first) < 12
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    trainer = trainer_of(tmp_path, callback(), max_epochs=2)
    trainer.fit(second := net(), loader(), ckpt_path=tmp_path / "half.ckpt")
    assert zeros(second) == 12


def test_schedules_end_with_training(tmp_path):
    trainer = trainer_of(tmp_path, rebasing())
    trainer.fit(net := Net(), loader())
    base = net.net[0].parametrizations.weight[0].base.clone()
    optimizer = trainer.optimizers[0]
    for _ in range(3):
        net.net(torch.ones(1, 4)).sum().backward()
        optimizer.step()
    assert torch.equal(net.net[0].parametrizations.weight[0].base, base)


class TwoOptimizers(Net):
    """Only one of them moves what is parametrized."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def configure_optimizers(self):
        return [torch.optim.SGD(self.net[i].parameters(), lr=0.05) for i in (0, 2)]

    def training_step(self, batch, index):
        self.net(batch[0]).square().mean().backward()
        for optimizer in self.optimizers():
            optimizer.step()
            optimizer.zero_grad()


def test_a_schedule_finds_its_optimizer(tmp_path):
    callback = rebasing()
    trainer_of(tmp_path, callback, max_epochs=1).fit(net := TwoOptimizers(), loader())
    assert callback.state_dict() == {"schedules": {"0.0": {"steps": 8}}}
    assert gap(net) < 1e-5


def test_a_schedule_that_concerns_nothing_says_so(tmp_path):
    callback = HoldfastCallback(schedules=[holdfast.Sparsify])
    with pytest.raises(ValueError, match="GradualTopK"):
        trainer_of(tmp_path, callback).fit(Net(), loader())


# ---- Beside what Lightning offers ----------------------------------------------------


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_every_precision_keeps_the_constraint(tmp_path, precision):
    callback = HoldfastCallback(
        every=1, lost="stop", schedules=[partial(holdfast.Rebase, every=4)]
    )
    trainer = trainer_of(tmp_path, callback, precision=precision)
    trainer.fit(net := Late(), loader())
    assert callback.message == ""
    assert trainer.global_step == 16
    assert gap(net) < (0.05 if precision == "bf16-true" else 1e-5)
    trainer.save_checkpoint(path := tmp_path / "net.ckpt")
    again = Late.load_from_checkpoint(path)
    torch.testing.assert_close(again.net[0].weight.double(), net.net[0].weight.double())


def test_a_base_that_was_rounded_to_float32_is_not_orthogonal_in_float64(tmp_path):
    """A module made before the trainer; in `configure_model` it is made in float64."""
    callback = HoldfastCallback(every=1, lost="stop")
    trainer = trainer_of(tmp_path, callback, precision="64-true")
    with pytest.warns(UserWarning, match="Training stops"):
        trainer.fit(Net(), loader())
    assert "above 1.4e-14" in callback.message


def test_gradient_accumulation_is_one_long_batch(tmp_path):
    class Long(Net):
        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.05)

    nets = [Long(), Long()]
    trainer_of(tmp_path, rebasing(), accumulate_grad_batches=4).fit(nets[0], loader())
    whole = DataLoader(loader().dataset, batch_size=16)
    trainer_of(tmp_path, rebasing()).fit(nets[1], whole)
    torch.testing.assert_close(nets[0].net[0].weight, nets[1].net[0].weight)
    assert gap(nets[0]) < 1e-5


@pytest.mark.parametrize(
    "average",
    [partial(EMAWeightAveraging, decay=0.9), partial(StochasticWeightAveraging, 0.05)],
)
def test_averages_of_lightning_keep_a_fixed_base(tmp_path, average):
    trainer = trainer_of(tmp_path, average(), max_epochs=3)
    trainer.fit(net := Validated(), loader(), loader())
    assert gap(net) < 1e-5
    assert trainer.callback_metrics["worst"] < 1e-5


def test_base_points_that_move_are_not_for_lightnings_averages(tmp_path):
    callback = HoldfastCallback(schedules=[holdfast.Rebase])
    trainer = trainer_of(tmp_path, callback, EMAWeightAveraging(decay=0.9))
    with pytest.warns(UserWarning, match=r"Use `holdfast\.AverageWeights`"):
        trainer.fit(net := Validated(), loader(), loader())
    assert gap(net) > 1e-3, trainer.callback_metrics


class Averages(pl.Callback):
    """Those of holdfast, after every step."""

    def on_fit_start(self, trainer, module):
        self.ema = holdfast.AverageWeights(
            module.net, multi_avg_fn=get_ema_multi_avg_fn(0.9)
        )

    def on_train_batch_end(self, trainer, module, *_):
        self.ema.update_parameters(module.net)


def test_averages_of_holdfast_are(tmp_path):
    callback, averages = HoldfastCallback(schedules=[holdfast.Rebase]), Averages()
    trainer_of(tmp_path, callback, averages).fit(net := Net(), loader())
    Q = averages.ema.module[0].weight.detach()
    assert (Q.T @ Q - torch.eye(4)).abs().max() < 1e-5
    assert not torch.allclose(Q, net.net[0].weight, atol=1e-3)


# ---- The other package ---------------------------------------------------------------


def test_it_serves_pytorch_lightning_too(tmp_path):
    other = pytest.importorskip("pytorch_lightning", reason="it is not installed")

    class Other(Parts, other.LightningModule):
        pass

    callback = HoldfastCallback(every=1, lost="stop", schedules=[holdfast.Rebase])
    trainer = trainer_of(tmp_path, callback, package=other)
    trainer.fit(net := Other(), loader())
    assert trainer.global_step == 16
    assert gap(net) < 1e-5
    assert callback.state_dict() == {"schedules": {"0.0": {"steps": 16}}}
    callback = HoldfastCallback(lost="stop")
    callback = HoldfastCallback(lost="stop")
    with pytest.warns(UserWarning, match="Training stops"):
        trainer_of(tmp_path, callback, package=other).fit(Other(Drifts()), loader())
    assert "`net.0.weight`" in callback.message
