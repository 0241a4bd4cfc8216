import pytest
import torch
from ccop_pretrain.method import monitors
from ccop_pretrain.method.monitors import batch_accuracy, embedding_std, image_of_rows, similarity_monitors
from torch.nn.functional import normalize


def test_embedding_std_shows_a_collapse() -> None:
    assert embedding_std(torch.ones(6, 8)) == 0
    torch.manual_seed(0)
    spread = embedding_std(normalize(torch.randn(5000, 64)))
    assert spread.item() == pytest.approx(1 / 8, rel=0.02)
    assert embedding_std(torch.zeros(0, 8)) == 0


def test_the_accuracy_within_a_batch_leaves_out_keys_of_the_same_image(monkeypatch) -> None:
    axes = torch.eye(4)
    keys = axes[[0, 1, 2]]
    # The first query is closest to the second key, from the same image; the third, to a key from another image.
    queries = normalize(torch.stack([axes[0] + 2 * axes[1], axes[1], axes[2] + 2 * axes[0]]))
    same_image = torch.tensor([0, 0, 1])
    assert batch_accuracy(queries, keys, same_image).item() == pytest.approx(2 / 3)
    assert batch_accuracy(queries, keys, torch.arange(3)).item() == pytest.approx(1 / 3)
    monkeypatch.setattr(monitors, "ROWS_AT_ONCE", 2)
    assert batch_accuracy(queries, keys, same_image).item() == pytest.approx(2 / 3)
    assert batch_accuracy(queries[:0], keys[:0], same_image[:0]) == 0


def test_equal_keys_are_no_hit() -> None:
    same = torch.ones(5, 1)
    assert batch_accuracy(same, same, torch.arange(5)) == 0


def test_similarities_are_means_over_the_pairs() -> None:
    torch.manual_seed(0)
    queries, keys, queue = (normalize(torch.randn(count, 8)) for count in (6, 6, 20))
    figures = similarity_monitors(queries, keys, queue)
    pairs = queries @ keys.T
    others = pairs[~torch.eye(6, dtype=torch.bool)]
    expected = {
        "positive_similarity": pairs.diagonal().mean(),
        "batch_similarity": others.mean(),
        "queue_similarity": (queries @ queue.T).mean(),
    }
    torch.testing.assert_close(figures, expected)
    assert set(similarity_monitors(queries, keys, None)) == {"positive_similarity", "batch_similarity"}
    empty = similarity_monitors(queries[:0], keys[:0], queue)
    assert {value.item() for value in empty.values()} == {0.0}


def test_rows_know_their_image() -> None:
    assert image_of_rows([2, 0, 1], torch.device("cpu")).tolist() == [0, 0, 2]
