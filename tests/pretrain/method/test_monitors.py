import pytest
import torch
from ccop_pretrain.method.monitors import embedding_std
from torch.nn.functional import normalize


def test_embedding_std_shows_a_collapse() -> None:
    assert embedding_std(torch.ones(6, 8)) == 0
    torch.manual_seed(0)
    spread = embedding_std(normalize(torch.randn(5000, 64)))
    assert spread.item() == pytest.approx(1 / 8, rel=0.02)
    assert embedding_std(torch.zeros(0, 8)) == 0
