import json

import pytest
import torch
from ccop_pretrain.method.objective import ContrastivePretraining
from ccop_pretrain.training.export import export, run_facts
from ccop_pretrain.training.schedule import Schedule
from ccop_pretrain.views.listing import ImageListing
from safetensors.torch import load_file

from ccop_hub.architectures import ResNetFPN


def test_the_query_network_is_exported_with_its_facts(tiny_run, scenes, scene_proposals, tmp_path):
    (tmp_path / "labelled").mkdir()
    (tmp_path / "start.safetensors").touch()
    settings = tiny_run(probe=tmp_path / "labelled", init=str(tmp_path / "start.safetensors"))
    listing = ImageListing.open(scenes, scene_proposals)
    objective = ContrastivePretraining(settings, settings.backbone, 5, settings.image_size)
    with torch.no_grad():
        objective.query.network.backbone.conv1.weight.mul_(2)
    path = export(tmp_path / "exported", objective, settings, Schedule.of(settings, len(listing.paths)), listing)

    tensors = load_file(path)
    network = ResNetFPN("resnet18")
    network.load_state_dict(tensors)
    assert torch.equal(tensors["backbone.conv1.weight"], objective.query.network.backbone.conv1.weight)
    assert not torch.equal(tensors["backbone.conv1.weight"], objective.key.network.backbone.conv1.weight)

    text = (path.parent / "facts.json").read_text()
    facts = json.loads(text)
    assert facts["arch"] == "resnet18"
    assert facts["objective"] == "ccop"
    assert facts["dataset"] == {"name": scenes.name, "images": 14, "digest": listing.digest}
    assert (facts["steps"], facts["epochs"], facts["batch_size"], facts["image_size"]) == (5, 1.667, 4, 32)
    assert facts["input"]["mean"] == [123.675, 116.28, 103.53]
    assert facts["settings"]["jitters"] == 2
    assert facts["versions"]["torch"]
    assert (facts["settings"]["probe"], facts["settings"]["init"]) == ("labelled", "start.safetensors")
    assert str(scenes.parent) not in text
    assert str(tmp_path) not in text


@pytest.mark.parametrize("name", ["ccop_resnet50", "hf-hub:someone/weights@main", "https://a.org/b.pth", "random"])
def test_a_start_that_is_no_place_keeps_its_name(name, tiny_run, scenes, scene_proposals):
    settings = tiny_run(init=name)
    facts = run_facts(settings, Schedule.of(settings, 14), ImageListing.open(scenes, scene_proposals))
    assert facts["settings"]["init"] == name
    assert facts["settings"]["probe"] is None
