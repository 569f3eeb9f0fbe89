"""Parametrized models under the Trainer: train, save, resume, keep their sets."""

from __future__ import annotations

import warnings
from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

import holdfast
from holdfast import maps

transformers = pytest.importorskip("transformers", reason="Transformers is missing")
pytest.importorskip("accelerate", reason="accelerate is missing")

from holdfast.integrations.transformers import HoldfastCallback  # noqa: E402
from support import Drifts  # noqa: E402


class Net(nn.Module):
    """A small regression whose first weight is parametrized."""

    def __init__(self, link=None):
        super().__init__()
        torch.manual_seed(0)
        first = nn.Linear(4, 4, bias=False)
        nn.init.orthogonal_(first.weight)
        if link is None:
            holdfast.orthogonal(first)
        else:
            holdfast.register_parametrization(first, "weight", link)
        self.net = nn.Sequential(first, nn.Tanh(), nn.Linear(4, 1))

    def forward(self, x, labels=None):
        y = self.net(x)
        return {"loss": (y - labels).square().mean(), "logits": y}


class Sums(Dataset):
    def __init__(self):
        self.x = torch.randn(32, 4, generator=torch.Generator().manual_seed(0))

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return {"x": self.x[i], "labels": self.x[i].sum(0, keepdim=True)}


def trainer_of(folder, model, **options):
    settings = {
        "num_train_epochs": 2,
        "per_device_train_batch_size": 4,
        "learning_rate": 0.05,
        "lr_scheduler_type": "constant",
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": True,
        "logging_steps": 1,
        "dataloader_pin_memory": False,
    }
    arguments = transformers.TrainingArguments(str(folder), **{**settings, **options})
    trainer = transformers.Trainer(model, arguments, train_dataset=Sums())
    trainer.remove_callback(transformers.PrinterCallback)
    return trainer


def gap(net):
    Q = net.net[0].weight.detach().float()
    return (Q.T @ Q - torch.eye(4)).abs().max().item()


def losses(trainer):
    return {
        row["step"]: row["loss"] for row in trainer.state.log_history if "loss" in row
    }


def train(folder, model, *, resume=None, options=None, **callback):
    trainer = trainer_of(folder, model, **(options or {}))
    ours = HoldfastCallback(trainer, **callback)
    trainer.add_callback(ours)
    trainer.train(resume_from_checkpoint=resume)
    return trainer, ours


# ---- What is logged ------------------------------------------------------------------


def test_the_trainer_logs_the_figures_beside_its_own(tmp_path):
    trainer, _ = train(tmp_path, net := Net(), every=5, spectra_every=8)
    name = "residual/net.0.weight"
    found = {row["step"]: row[name] for row in trainer.state.log_history if name in row}
    assert [*found] == [1, 5, 10, 15]
    assert all(0 <= residual < 1e-5 for residual in found.values())
    name = "condition/net.0.weight"
    assert [r["step"] for r in trainer.state.log_history if name in r] == [1, 8, 16]
    assert [*losses(trainer)] == [*range(1, 17)], "each of its own is still there"
    assert gap(net) < 1e-5


def test_or_a_function_does(tmp_path):
    found = []
    trainer = trainer_of(tmp_path, Net())
    trainer.add_callback(HoldfastCallback(lambda *row: found.append(row), every=8))
    trainer.train()
    assert {(name, step) for name, _, step in found} >= {
        ("residual/net.0.weight", 8),
        ("condition/net.0.weight", 1),
    }
    assert all("residual/net.0.weight" not in row for row in trainer.state.log_history)


def test_tensorboard_gets_them(tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = tmp_path / "logs"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TENSORBOARD_LOGGING_DIR", str(folder))
        train(tmp_path, Net(), options={"report_to": ["tensorboard"]}, every=8)
    events = EventAccumulator(str(next(folder.glob("**/*tfevents*")).parent)).Reload()
    tag = next(t for t in events.Tags()["scalars"] if "residual/net.0.weight" in t)
    assert [event.step for event in events.Scalars(tag)] == [1, 8, 16]


# ---- What is left alone, and what is lost --------------------------------------------


def test_training_is_the_same_with_and_without(tmp_path):
    with_it, _ = train(tmp_path, Net(), every=1, spectra_every=1)
    without = trainer_of(tmp_path, Net())
    without.train()
    assert losses(with_it) == losses(without)


def test_training_stops_when_a_constraint_is_lost(tmp_path):
    with pytest.warns(UserWarning, match="Training stops.*`net.0.weight`"):
        trainer, ours = train(tmp_path, Net(Drifts()), every=3, lost="stop")
    assert trainer.state.global_step == 1
    assert "`net.0.weight`" in ours.message


def test_or_warns_and_goes_on(tmp_path):
    with pytest.warns(UserWarning, match="`net.0.weight` has a residual") as caught:
        trainer, _ = train(tmp_path, Net(Drifts()), every=3)
    assert len([w for w in caught if "residual" in str(w.message)]) == 1
    assert trainer.state.global_step == 16


def test_a_constraint_that_is_kept_neither_stops_nor_warns(tmp_path):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*residual")
        trainer, ours = train(tmp_path, Net(), every=1, lost="stop")
    assert trainer.state.global_step == 16
    assert ours.message == ""


def test_processes_agree_at_every_turn_also_where_a_look_is_left_out(
    tmp_path, monkeypatch
):
    asked = []

    def all_reduce(flag, operation):  # another process loses it at the third turn
        assert operation == torch.distributed.ReduceOp.MAX
        asked.append(flag.item())
        flag.fill_(len(asked) == 3)

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    ours = HoldfastCallback(every=4, spectra_every=0, lost="stop", share=1e-9)
    net, control = Net(), transformers.TrainerControl()
    state = transformers.TrainerState(stateful_callbacks={})
    arguments = transformers.TrainingArguments(str(tmp_path), use_cpu=True)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    ours.on_train_begin(arguments, state, control, model=net, optimizer=optimizer)
    for state.global_step in range(1, 8):
        ours.on_step_end(arguments, state, control)
    assert asked == [0, 0]  # steps 1 and 4
    assert not control.should_training_stop
    state.global_step = 8
    with pytest.warns(UserWarning, match="stops.*lost in another process"):
        ours.on_step_end(arguments, state, control)
    assert control.should_training_stop


# ---- Schedules, and resuming ---------------------------------------------------------

SAVING = {"save_strategy": "steps", "save_steps": 8}
REBASE = partial(holdfast.Rebase, every=3)  # which 8 steps are no multiple of


def test_a_run_that_is_resumed_goes_on_as_if_it_had_not_stopped(tmp_path):
    first, _ = train(tmp_path, net := Net(), options=SAVING, schedules=[REBASE])
    second, ours = train(
        tmp_path,
        again := Net(),
        options=SAVING,
        schedules=[REBASE],
        resume=str(tmp_path / "checkpoint-8"),
    )
    assert losses(second) == losses(first)
    assert torch.equal(again.net[0].weight, net.net[0].weight)
    assert ours._schedules.state_dict() == {"0.0": {"steps": 16}}
    assert gap(again) < 1e-5


def test_without_its_state_a_schedule_would_go_another_way(tmp_path):  # the control
    first, _ = train(tmp_path, Net(), options=SAVING, schedules=[REBASE])
    path = tmp_path / "checkpoint-8/trainer_state.json"
    text = path.read_text()
    assert '"steps": 8' in text
    path.write_text(text.replace('"steps": 8', '"steps": 7'))
    second, _ = train(
        tmp_path, Net(), schedules=[REBASE], resume=str(tmp_path / "checkpoint-8")
    )
    assert losses(second) != losses(first)


def test_sparsity_rises(tmp_path):
    net = Net(maps.GradualTopK(0.75, steps=16))
    train(tmp_path, net, schedules=[holdfast.Sparsify])
    assert int((net.net[0].weight == 0).sum()) == 12


def test_schedules_end_with_training(tmp_path):
    trainer, _ = train(tmp_path, net := Net(), schedules=[holdfast.Rebase])
    base = net.net[0].parametrizations.weight[0].base.clone()
    net.net(torch.ones(1, 4)).sum().backward()
    trainer.optimizer.step()
    assert torch.equal(net.net[0].parametrizations.weight[0].base, base)


@pytest.mark.parametrize(
    "options", [{"bf16": True}, {"gradient_accumulation_steps": 4}]
)
def test_the_trainers_options_keep_the_constraint(tmp_path, options):
    trainer, ours = train(
        tmp_path,
        net := Net(),
        options=options,
        every=1,
        lost="stop",
        schedules=[REBASE],
    )
    assert ours.message == ""
    steps = 16 // options.get("gradient_accumulation_steps", 1)
    assert trainer.state.global_step == steps
    assert ours._schedules.state_dict() == {"0.0": {"steps": steps}}
    assert gap(net) < 1e-5


# ---- Files ---------------------------------------------------------------------------


def test_the_trainers_file_is_loaded_and_a_folded_one_is_plain(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    trainer, _ = train(tmp_path, net := Net(), schedules=[REBASE])
    trainer.save_model(str(tmp_path / "saved"))
    state = safetensors.load_file(tmp_path / "saved/model.safetensors")
    assert "net.0.parametrizations.weight.original" in state
    again = Net()
    again.load_state_dict(state)
    assert torch.equal(again.net[0].weight, net.net[0].weight)
    with holdfast.folded(net):
        trainer.save_model(str(tmp_path / "plain"))
    state = safetensors.load_file(tmp_path / "plain/model.safetensors")
    assert [*state] == ["net.0.weight", "net.2.bias", "net.2.weight"]
    again = Net()
    again.load_state_dict(state)
    torch.testing.assert_close(again.net[0].weight, net.net[0].weight)


def bert():
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=11,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=8,
    )
    return transformers.BertForSequenceClassification(config)


def orthogonal_bert():
    model = bert()
    for layer in model.bert.encoder.layer:
        holdfast.orthogonal(layer.attention.self.query)
    return model


def query_of(model):
    return model.bert.encoder.layer[0].attention.self.query


class Words(Dataset):
    def __len__(self):
        return 32

    def __getitem__(self, i):
        return {"input_ids": torch.tensor([i % 11, 3, 4]), "labels": i % 2}


def train_bert(folder, model, resume=None):
    trainer = trainer_of(folder, model, **SAVING, learning_rate=1e-3)
    trainer.train_dataset = Words()
    ours = HoldfastCallback(trainer, every=1, lost="stop", schedules=[REBASE])
    trainer.add_callback(ours)
    trainer.train(resume_from_checkpoint=resume)
    assert ours.message == ""
    return trainer


def test_a_model_of_the_library_is_trained_folded_saved_and_loaded(tmp_path):
    model = orthogonal_bert()
    train_bert(tmp_path, model)
    with holdfast.folded(model):
        model.save_pretrained(tmp_path / "bert")
    plain = transformers.BertForSequenceClassification.from_pretrained(
        tmp_path / "bert"
    )
    assert not any("parametrizations" in name for name, _ in plain.named_parameters())
    query = query_of(plain)
    Q = query.weight.detach()
    assert (Q.T @ Q - torch.eye(8)).abs().max() < 1e-5
    torch.testing.assert_close(Q, query_of(model).weight.detach())
    holdfast.orthogonal(query)  # which keeps an orthogonal weight
    torch.testing.assert_close(query.weight, query_of(model).weight)


def test_a_model_of_the_library_is_resumed(tmp_path):
    first = train_bert(tmp_path, model := orthogonal_bert())
    again = orthogonal_bert()
    second = train_bert(tmp_path, again, resume=str(tmp_path / "checkpoint-8"))
    assert losses(second) == losses(first)
    assert torch.equal(query_of(again).weight, query_of(model).weight)
