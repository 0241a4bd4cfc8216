import math

import pytest
import torch
from ccop_pretrain.method.encoder import Encoder
from torch.testing import assert_close


def tiny(**changes: object) -> Encoder:
    torch.manual_seed(0)
    return Encoder(**{"arch": "resnet18", "image_size": 64, "hidden_dim": 16, "embedding_dim": 8, **changes})


class TestEncoder:
    def test_heads(self) -> None:
        encoder = Encoder("resnet18")
        for head, inputs in ((encoder.image_head, 512), (encoder.box_head, 256 * 49)):
            assert [type(layer).__name__ for layer in head] == ["Linear", "Dropout", "ReLU", "Linear"]
            assert (head.hidden.in_features, head.hidden.out_features, head.output.out_features) == (inputs, 2048, 128)
            assert head.dropout.p == 0.1
            for layer in (head.hidden, head.output):
                assert layer.weight.std().item() == pytest.approx(0.01, rel=0.01)
                assert layer.bias.abs().max() == 0

    def test_unit_embeddings(self) -> None:
        encoder = tiny()
        features = encoder(torch.randn(2, 3, 64, 64))
        boxes = [torch.tensor([[0.0, 0, 30, 30], [5, 5, 60, 60]]), torch.tensor([[10.0, 0, 20, 50]])]
        images, rows = encoder.embed_images(features.pooled), encoder.embed_boxes(features.pyramid, boxes)
        assert (images.shape, rows.shape) == ((2, 8), (3, 8))
        assert_close(images.norm(dim=1), torch.ones(2))
        assert_close(rows.norm(dim=1), torch.ones(3))

    def test_pooled_is_the_mean_of_the_last_stage(self) -> None:
        encoder, images = tiny(), torch.randn(2, 3, 64, 64)
        assert_close(encoder(images).pooled, encoder.network.stages(images)["res5"].mean((2, 3)))

    @pytest.mark.parametrize("head", ["image_head", "box_head"])
    def test_dropout_is_live_in_both_heads(self, head: str) -> None:
        layer = getattr(tiny(dropout=0.5), head)
        inputs = torch.ones(1, layer.hidden.in_features)
        assert not torch.equal(layer(inputs), layer(inputs))
        assert torch.equal(layer.eval()(inputs), layer(inputs))

    def test_without_a_box_head_the_pyramid_rests(self) -> None:
        encoder = tiny(box_head=False)
        assert encoder(torch.randn(2, 3, 64, 64)).pyramid == {}
        assert not any(parameter.requires_grad for parameter in encoder.network.fpn.parameters())
        with pytest.raises(ValueError, match="no box head"):
            encoder.embed_boxes({}, [])

    def test_embeddings_are_float32_under_autocast(self) -> None:
        encoder = tiny(dropout=0.0).eval()
        images, boxes = torch.randn(2, 3, 64, 64), [torch.tensor([[0.0, 0, 30, 30]])] * 2
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            low = encoder(images)
            embedded = encoder.embed_images(low.pooled), encoder.embed_boxes(low.pyramid, boxes)
        assert low.pyramid["p2"].dtype == torch.bfloat16
        assert [values.dtype for values in embedded] == [torch.float32] * 2
        for rows in embedded:
            # Normalised in float32: in bf16, the norm would be off by up to 2^-8, 4e-3.
            assert_close(rows.norm(dim=1), torch.ones(2), rtol=1e-6, atol=0)

    def test_features_under_autocast_differ_by_the_rounding_of_bf16(self) -> None:
        """Every layer rounds its input, weights and output, each by at most u = 2^-8 of their norm (bf16 has 8
        significant bits). With fixed batch norm, relative errors propagate without growing. The errors of 60 roundings,
        in the 20 layers of a ResNet-18 with FPN, are independent and add up to sqrt(60) u, or 3 %."""
        limit = math.sqrt(3 * 20) * torch.finfo(torch.bfloat16).eps / 2
        encoder, images = tiny(dropout=0.0).eval(), torch.randn(4, 3, 64, 64)
        with torch.no_grad():
            plain = encoder(images)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                low = encoder(images)
        for exact, mine in (
            (plain.pooled, low.pooled),
            *((plain.pyramid[name], low.pyramid[name]) for name in plain.pyramid),
        ):
            error = (mine.float() - exact).norm() / exact.norm()
            assert 1e-4 < error < limit


def small(**changes):
    torch.manual_seed(0)
    return Encoder("resnet18", image_size=64, hidden_dim=512, embedding_dim=8, **changes)


def test_heads_start_as_in_the_paper_or_as_pytorch_has_it():
    paper, pytorch = small().image_head, small(head_init="pytorch").image_head
    assert paper.hidden.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert paper.hidden.bias.abs().max() == 0
    # U(-1/sqrt(n), 1/sqrt(n)) with n inputs.
    assert pytorch.hidden.weight.std().item() == pytest.approx(1 / (3 * 512) ** 0.5, rel=0.02)
    assert 0.9 / 512**0.5 < pytorch.hidden.bias.abs().max() <= 1 / 512**0.5


def test_batch_norm_in_the_heads_normalises_the_hidden_layer():
    encoder = small(head_norm=True, dropout=0.0)
    assert not hasattr(small().image_head, "norm")
    seen = []
    encoder.image_head.norm.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    encoder.embed_images(torch.rand(32, 512))
    assert seen[0].mean(0).abs().max() < 1e-4
    assert [name for name, _ in encoder.box_head.named_children()] == ["hidden", "norm", "dropout", "relu", "output"]


@pytest.mark.parametrize("rows", [0, 1])
def test_batch_norm_of_too_few_boxes_takes_its_running_statistics(rows):
    head = small(head_norm=True, dropout=0.0).box_head
    inputs = torch.rand(rows, 256 * 49)
    outputs = head(inputs)
    outputs.sum().backward()
    assert head.hidden.weight.grad is not None
    assert int(head.norm.num_batches_tracked) == 0
    torch.testing.assert_close(outputs, head.eval()(inputs))


@pytest.mark.parametrize(("arch", "last"), [("resnet18", "bn2"), ("resnet50", "bn3")])
def test_residual_blocks_may_start_as_the_identity(arch, last):
    for zero, scale in ((False, 1.0), (True, 0.0)):
        torch.manual_seed(0)
        network = Encoder(arch, zero_init_last=zero, box_head=False).network.backbone
        scales = {name: module.weight.mean().item() for name, module in network.named_modules() if "bn" in name}
        assert {value for name, value in scales.items() if name.endswith(last) and "layer" in name} == {scale}
        assert scales["bn1"] == scales["layer2.0.bn1"] == 1.0


@pytest.mark.parametrize("arch", ["test_convnext", "test_efficientnet"])
def test_every_parameter_of_any_backbone_is_trained(arch: str) -> None:
    encoder = tiny(arch=arch, zero_init_last=True, groups=2)
    features = encoder(torch.randn(4, 3, 64, 64))
    boxes = [torch.tensor([[0.0, 0, 30, 30], [5, 5, 60, 60]])] * 4
    assert_close(features.pooled.shape[1], encoder.network.backbone.feature_info[-1]["num_chs"])
    loss = encoder.embed_images(features.pooled)[:, 0].sum() + encoder.embed_boxes(features.pyramid, boxes)[:, 0].sum()
    loss.backward()
    assert [name for name, parameter in encoder.named_parameters() if parameter.grad is None] == []
