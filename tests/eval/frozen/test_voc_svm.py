import multiprocessing

import numpy as np
import pytest
from ccop_eval.cli import main
from ccop_eval.frozen.voc_svm import average_precision, require_folds, svm_scores
from ccop_eval.results.result import Result
from sklearn.model_selection import StratifiedKFold
from sklearn.svm import LinearSVC

from ccop_hub.errors import UserError


def slow_average_precision(labels, scores):
    """Average of the precision at each positive image in order of score; ignores ties and difficult images."""
    order = sorted((-score, label) for score, label in zip(scores, labels, strict=True) if label != 0)
    found, precisions = 0, []
    for position, (_, label) in enumerate(order, start=1):
        if label == 1:
            found += 1
            precisions.append(found / position)
    return 100 * sum(precisions) / len(precisions)


def test_average_precision_equals_a_slow_recomputation():
    generator = np.random.default_rng(0)
    for _ in range(20):
        labels = generator.choice([1, -1, 0], 30)
        scores = generator.normal(size=30)
        assert average_precision(labels, scores) == pytest.approx(slow_average_precision(labels, scores))
    assert np.isnan(average_precision(np.array([-1, 0]), np.array([0.0, 1.0])))


def test_cost_is_chosen_a_class_by_three_folds_on_trainval():
    generator = np.random.default_rng(1)
    features = generator.normal(size=(60, 4))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    labels = np.where(features[:, 0] + generator.normal(0, 0.3, 60) > 0.4, 1, -1)
    labels[:5] = 0
    tried = (1e-7, 0.01, 10.0)
    scores, costs = svm_scores(features, {"a": labels}, features, tried, seed=0)
    counted, means = labels != 0, []
    for cost in tried:
        precisions = []
        for fit, held in StratifiedKFold(3).split(features[counted], labels[counted]):
            svm = LinearSVC(C=cost, class_weight={1: 2, -1: 1}, tol=1e-4, max_iter=2000, random_state=0)
            svm.fit(features[counted][fit], labels[counted][fit])
            held_scores = svm.decision_function(features[counted][held])
            precisions.append(slow_average_precision(labels[counted][held], held_scores))
        means.append(np.mean(precisions))
    assert costs == {"a": tried[int(np.argmax(means))]}
    assert average_precision(labels, scores["a"]) > 80
    with pytest.raises(UserError, match="class a has 2 "):
        require_folds({"a": np.where(np.arange(60) < 2, 1, -1)})


@pytest.fixture(scope="module")
def voc(tmp_path_factory, cut_outs):
    """A `VOC2007` folder of crops; the `shuffled-*` classes have the same labels in random order."""
    root = tmp_path_factory.mktemp("voc") / "VOC2007"
    lists = root / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (root / "JPEGImages").mkdir()
    generator = np.random.default_rng(2)
    for split, source in (("trainval", "train"), ("test", "val")):
        shown = [(kind, picture) for kind, pictures in cut_outs[source].items() for picture in pictures]
        for number, (_, picture) in enumerate(shown):
            picture.save(root / "JPEGImages" / f"{split}{number:03d}.jpg", quality=95)
        for wanted in cut_outs[source]:
            values = [1 if kind == wanted else -1 for kind, _ in shown]
            values[3] = 0
            for name, listed in ((wanted, values), (f"shuffled-{wanted}", generator.permutation(values).tolist())):
                lines = [f"{split}{number:03d} {value:2d}" for number, value in enumerate(listed)]
                (lists / f"{name}_{split}.txt").write_text("\n".join(lines) + "\n")
    return root


def voc_svm(data, out, *flags):
    common = ["--weights", "random", "--backbone", "resnet18", "--accelerator", "cpu", "--workers", "0"]
    small = ["--image_size", "64", "--costs", "[0.5,1,8]", "--cache", str(out.parent / "cache")]
    return main(["voc-svm", *common, *small, "--data", str(data), "--out", str(out), *flags])


def test_learnable_classes_are_learnt_and_shuffled_ones_are_not(voc, seeing_weights, tmp_path):
    sides = ["--weights", str(seeing_weights), "--against", str(seeing_weights)]
    assert voc_svm(voc.parent, tmp_path / "out", *sides) == 0
    result = Result.read(tmp_path / "out")
    precision = result.per_class["AP"]
    assert min(precision["ground"], precision["object"]) > 78
    assert max(precision["shuffled-ground"], precision["shuffled-object"]) < 70
    assert result.metrics["mAP"] == pytest.approx(np.mean(list(precision.values())))
    assert result.protocol == "voc07-svm+costs=0.5/1/8,image_size=64"
    assert result.data.images == 40
    assert result.paired["mAP"].difference == 0
    assert set(result.details["costs"]["weights"]) == set(precision)
    assert (tmp_path / "out" / "pictures" / "highest-scored.png").is_file()


def test_folder_that_is_not_voc_and_absent_image_are_named(voc, tmp_path, capsys):
    assert voc_svm(tmp_path, tmp_path / "out") == 2
    assert "is not VOC2007" in capsys.readouterr().err
    image = voc / "JPEGImages" / "test000.jpg"
    content = image.read_bytes()
    image.unlink()
    try:
        assert voc_svm(voc, tmp_path / "out2") == 2
        assert "test000.jpg" in capsys.readouterr().err
    finally:
        image.write_bytes(content)


def test_processes_fit_the_same_svms_and_end():
    generator = np.random.default_rng(0)
    features = generator.normal(size=(60, 8)).astype(np.float32)
    labels = {name: generator.choice([1, -1, 0], 60).astype(np.int8) for name in "ab"}
    before = set(multiprocessing.active_children())
    alone, own = (svm_scores(features, labels, features[:9], (1.0, 8.0), 0, workers) for workers in (0, 2))
    assert alone[1] == own[1]
    for name in labels:
        np.testing.assert_array_equal(alone[0][name], own[0][name])
    assert set(multiprocessing.active_children()) <= before
