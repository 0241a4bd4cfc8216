import json
import signal

import pytest
import torch
from ccop_eval.cli import main
from ccop_eval.frozen.linear import split_holdout
from ccop_eval.results.result import Result

from ccop_hub.errors import UserError


def linear(data, out, *flags):
    common = ["--weights", "random", "--backbone", "resnet18", "--against", "null", "--accelerator", "cpu"]
    small = ["--image_size", "64", "--batch_size", "32", "--workers", "0"]
    return main(["linear", *common, *small, "--data", str(data), "--out", str(out), *flags])


@pytest.fixture(scope="module")
def learning(seeing_weights):
    """Flags of a run that is long enough to learn the classes."""
    return ["--weights", str(seeing_weights), "--epochs", "4", "--holdout", "0.2"]


@pytest.fixture(scope="module")
def learnt(image_folders, learning, tmp_path_factory):
    out = tmp_path_factory.mktemp("linear")
    assert linear(image_folders / "learnable", out, *learning) == 0
    return out


def test_learnable_labels_are_learnt_and_shuffled_ones_are_not(learnt, learning, image_folders, tmp_path):
    assert Result.read(learnt).metrics["top1"] > 78
    assert linear(image_folders / "shuffled", tmp_path / "o", *learning) == 0
    assert Result.read(tmp_path / "o").metrics["top1"] < 65


def test_result_says_how_it_was_measured(learnt):
    result = Result.read(learnt)
    assert result.protocol == "linear-sweep+batch_size=32,epochs=4,holdout=0.2,image_size=64"
    assert result.loaded == "backbone"
    assert len(result.tensors.used) == 120
    assert {name.split(".")[0] for name in result.tensors.unused} == {"fpn"}
    heads = result.details["heads"]["weights"]
    assert len(heads) == 26
    best = max(heads, key=lambda head: head["holdout/top1"])
    assert result.effective_lr == pytest.approx(best["lr"] * 32 / 256)
    assert result.metrics["top1"] == pytest.approx(best["val/top1"]), "the hold-out chooses the head, not val"
    assert [entry["step"] for entry in result.curve] == [3, 6, 9, 12]
    assert result.data.images == 40
    for name in ("training-views", "scored-images"):
        assert (learnt / "pictures" / f"{name}.png").stat().st_size > 1000


def test_resumed_run_ends_where_an_uninterrupted_one_does(image_folders, tmp_path, monkeypatch):
    from ccop_eval.frozen import linear_training as module

    assert linear(image_folders / "learnable", tmp_path / "whole", "--epochs", "2") == 0
    stepped = module.LinearTraining._step

    def interrupted(self, epoch, step, *rest):
        if (epoch, step) == (1, 1):
            signal.raise_signal(signal.SIGTERM)
        return stepped(self, epoch, step, *rest)

    monkeypatch.setattr(module.LinearTraining, "_step", interrupted)
    assert linear(image_folders / "learnable", tmp_path / "parts", "--epochs", "2") == 143
    state = torch.load(tmp_path / "parts" / "state.ckpt", weights_only=True)
    assert (state["epoch"], state["step"]) == (1, 2), "the state of the last step is saved, not that of the last epoch"
    monkeypatch.undo()
    assert linear(image_folders / "learnable", tmp_path / "parts", "--epochs", "2", "--resume=false") == 2
    assert linear(image_folders / "learnable", tmp_path / "parts", "--epochs", "2") == 0
    whole, parts = (Result.read(tmp_path / name) for name in ("whole", "parts"))
    assert parts.curve == whole.curve
    assert parts.details == whole.details


def test_state_of_another_run_is_refused(learnt, learning, image_folders, capsys):
    assert linear(image_folders / "shuffled", learnt, *learning) == 2
    assert "with other settings: data (" in capsys.readouterr().err


def test_paired_sides_see_the_same_batches(image_folders, tmp_path, tiny_weights):
    flags = ["--epochs", "1", "--protocol", "linear-moco-lr30"]
    data = image_folders / "learnable"
    assert linear(data, tmp_path / "same", *flags, "--against", "random") == 0
    same = Result.read(tmp_path / "same")
    assert same.paired["top1"].difference == same.paired["top1"].low == same.paired["top1"].high == 0
    assert same.curve == same.against.curve
    assert same.effective_lr == 30.0, "MoCo's rate is not scaled by the batch"
    assert linear(data, tmp_path / "other", *flags, "--against", str(tiny_weights)) == 0
    other = Result.read(tmp_path / "other")
    assert other.metrics == same.metrics, "what stands beside a network does not change its own numbers"
    assert other.against.weights.digest != other.weights.digest
    interval = other.paired["top1"]
    assert interval.difference == pytest.approx(other.metrics["top1"] - other.against.metrics["top1"])
    assert interval.low <= interval.difference <= interval.high


def test_holdout_is_a_share_of_every_class_and_never_val():
    labels = [0] * 20 + [1] * 10 + [2] * 2
    kept, held = split_holdout(labels, 0.1, 0, ["a", "b", "c"])
    assert sorted(kept + held) == list(range(32))
    assert [sum(labels[index] == label for index in held) for label in range(3)] == [2, 1, 1]
    assert split_holdout(labels, 0.0, 0, ["a", "b", "c"]) == (list(range(32)), [])
    with pytest.raises(UserError, match=r"class b has 1 .* hold-out needs two"):
        split_holdout([0, 0, 1], 0.1, 0, ["a", "b"])


def test_two_processes_measure_what_one_does(image_folders, tmp_path, run_cli):
    flags = ["--epochs", "1", "--protocol", "linear-moco-lr30"]
    data = image_folders / "learnable"
    assert linear(data, tmp_path / "one", *flags) == 0
    common = ["--weights", "random", "--backbone", "resnet18", "--against", "null", "--accelerator", "cpu"]
    small = ["--image_size", "64", "--batch_size", "32", "--workers", "0", "--devices", "2"]
    run_cli("linear", *common, *small, "--data", str(data), "--out", str(tmp_path / "two"), *flags)
    one, two = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("one", "two"))
    assert two["hardware"]["devices"] == 2
    assert two["metrics"] == one["metrics"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("val/extra", "different classes"),
        ("broken", "unreadable image"),
    ],
)
def test_mistakes_in_the_data_are_one_line(image_folders, tmp_path, capsys, change, says):
    import shutil

    data = tmp_path / "data"
    shutil.copytree(image_folders / "learnable", data)
    if change == "broken":
        file = next((data / "train" / "object").iterdir())
        file.write_bytes(file.read_bytes()[:100])
    else:
        shutil.copytree(data / "val" / "object", data / change)
    assert linear(data, tmp_path / "out", "--epochs", "1", "--workers", "1") == 2
    message = capsys.readouterr().err
    assert says in message
    assert "Traceback" not in message
    assert message.strip().splitlines()[-1].startswith("ccop-eval: ")


def test_features_that_are_not_finite_are_refused(image_folders, overflowing_weights, tmp_path, capsys):
    flags = ["--weights", str(overflowing_weights), "--epochs", "1"]
    assert linear(image_folders / "learnable", tmp_path / "out", *flags) == 2
    message = capsys.readouterr().err
    assert "are not finite" in message
    assert "Traceback" not in message
    assert message.strip().splitlines()[-1].startswith("ccop-eval: ")
    assert not (tmp_path / "out" / "result.json").exists()


def test_diverging_head_stops_the_run_and_is_named(image_folders, seeing_weights, tmp_path, capsys, monkeypatch):
    from ccop_eval.frozen import linear_training

    losses = linear_training.head_losses
    factors = torch.ones(26)
    factors[3] = float("inf")
    monkeypatch.setattr(linear_training, "head_losses", lambda *given: losses(*given) * factors)
    assert linear(image_folders / "learnable", tmp_path / "out", "--weights", str(seeing_weights), "--epochs", "1") == 2
    assert "head 'lr 0.0001' on " in capsys.readouterr().err
    assert not (tmp_path / "out" / "result.json").exists()
