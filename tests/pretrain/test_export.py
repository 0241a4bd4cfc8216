import json

import torch
from ccop_pretrain.data import SceneListing
from ccop_pretrain.export import export
from ccop_pretrain.objective import ContrastivePretraining
from ccop_pretrain.schedule import Schedule
from safetensors.torch import load_file

from ccop_hub.architectures import ResNetFPN


def test_the_query_network_is_exported_with_its_facts(tiny_run, scenes, scene_proposals, tmp_path):
    settings = tiny_run()
    listing = SceneListing.open(scenes, scene_proposals)
    objective = ContrastivePretraining(settings, settings.backbone, 5, settings.image_size)
    with torch.no_grad():
        objective.query.network.backbone.conv1.weight.mul_(2)
    path = export(tmp_path / "exported", objective, settings, Schedule.of(settings, len(listing.images)), listing)

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
    assert str(scenes.parent) not in text
    assert str(tmp_path) not in text
