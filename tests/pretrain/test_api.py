"""The Python functions of `ccop_pretrain`, from images to an exported network."""

import dataclasses
import inspect
import subprocess
import sys

import ccop_pretrain
import pytest
from ccop_pretrain import settings

import ccop_hub
from ccop_hub.errors import UserError

FUNCTIONS = {
    "draw_scenes": settings.SceneSettings,
    "propose": settings.ProposalSettings,
    "inspect": settings.InspectSettings,
    "plan": settings.PlanSettings,
    "pretrain": settings.RunSettings,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_has_the_signature_and_help_of_its_settings(name):
    function, fields = getattr(ccop_pretrain, name), dataclasses.fields(FUNCTIONS[name])
    assert set(inspect.signature(function).parameters) == {field.name for field in fields}
    for field in fields:
        assert f"\n    {field.name}: " in function.__doc__
    assert name in ccop_pretrain.__all__


def test_from_images_to_a_network_that_loads(scenes, scene_proposals, tmp_path):
    found = ccop_pretrain.propose(scenes, scene_proposals, workers=1)
    assert found.folder == scene_proposals
    assert str(found.boxes) in found._repr_html_()
    views = {"image_size": 32, "min_box_area": 40}
    looked = ccop_pretrain.inspect(scenes, scene_proposals, tmp_path / "look", count=2, draws=4, **views)
    assert looked._repr_html_().count("data:image/png;base64,") == len(looked.sheets)
    run = ccop_pretrain.pretrain(
        str(scenes),
        str(tmp_path / "run"),
        proposals=scene_proposals,
        backbone="test_resnet",
        steps=2,
        batch_size=4,
        image_queue=8,
        box_queue=8,
        hidden_dim=8,
        embedding_dim=4,
        accelerator="cpu",
        devices=1,
        workers=0,
        tensorboard=False,
        **views,
    )
    assert run.steps == 2
    assert run.exit_code == 0
    assert run.metrics["loss"] > 0
    page = run._repr_html_()
    assert f"{run.metrics['loss']:.4g}" in page
    assert page.count("data:image/png;base64,") == len(run.pictures) > 0
    assert ccop_hub.info(str(run.out)).backbone == "test_resnet"
    assert ccop_hub.verify(str(run.out)).passed


def test_a_wrong_value_is_one_line_that_names_it(tmp_path):
    with pytest.raises(UserError, match=r"--lr -1.* above 0"):
        ccop_pretrain.pretrain(tmp_path, tmp_path / "run", lr=-1)


def test_importing_the_package_loads_nothing_heavy():
    code = "import sys, ccop_pretrain; dir(ccop_pretrain); print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"torch", "numpy", "pydantic", "lightning", "cv2"} & set(found) == set()
