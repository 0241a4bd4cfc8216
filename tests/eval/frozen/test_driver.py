import pytest
from ccop_eval.cli import main
from ccop_eval.frozen import driver
from PIL import Image


@pytest.fixture
def data(tmp_path):
    """Two classes with two images each per split."""
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            for number in range(2):
                Image.new("RGB", (40, 40), (90 * number, 50, 200)).save(folder / f"{number}.png")
    return tmp_path / "data"


def knn(data, k=2):
    common = ["--backbone", "resnet18", "--accelerator", "cpu", "--workers", "0", "--image-size", "32"]
    cache = ["--cache", str(data.parent / "cache")]
    out = ["--out", str(data.parent / "out")]
    return main(["knn", "--weights", "random", "--data", str(data), *out, *cache, *common, "--neighbours", str(k)])


@pytest.mark.parametrize(
    ("k", "change", "says"),
    [
        (2, lambda data: (data / "val" / "cat" / "x.jpg").symlink_to("nowhere"), "x.jpg"),
        (9, lambda data: None, "fewer than every k"),
        (2, lambda data: (data.parent / "out").write_text(""), "out is a file"),
        (2, lambda data: (data / "train" / "emu").mkdir(), "emu"),
    ],
)
def test_what_is_on_this_machine_is_checked_before_weights_are_looked_up(data, monkeypatch, capsys, k, change, says):
    monkeypatch.setattr(driver, "resolve_sides", lambda settings: pytest.fail("weights were looked up"))
    change(data)
    assert knn(data, k) == 2
    message = capsys.readouterr().err
    assert says in message
    assert message.strip().count("\n") == 0


def test_network_that_changes_while_it_is_measured_voids_the_result(data, monkeypatch):
    from ccop_eval.frozen.knn import KnnProbe

    measure = KnnProbe.measure

    def careless(self, run):
        found = measure(self, run)
        run.networks["weights"].network.backbone.bn1.running_mean += 1
        return found

    monkeypatch.setattr(KnnProbe, "measure", careless)
    with pytest.raises(RuntimeError, match="changed during the evaluation"):
        knn(data)
    assert not (data.parent / "out" / "result.json").exists()


def test_finished_run_is_not_measured_again(data, monkeypatch, capsys):
    assert knn(data) == 0
    monkeypatch.setattr(driver, "resolve_sides", lambda settings: pytest.fail("measured again"))
    capsys.readouterr()
    assert knn(data) == 0
    assert "k2/top1" in capsys.readouterr().out
