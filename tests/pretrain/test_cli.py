import subprocess
import sys

import pytest
import yaml
from ccop_pretrain.cli import NAMED_SETTINGS, main
from ccop_pretrain.training.run_folder import RunFolder

FLAGS = [
    "--image_size",
    "32",
    "--batch_size",
    "4",
    "--steps",
    "2",
    "--hidden_dim",
    "8",
    "--workers",
    "0",
    "--pictures",
    "0",
    "--accelerator",
    "cpu",
]


def test_run_takes_a_named_setting_and_flags_override_it(scenes, scene_proposals, tmp_path):
    out = tmp_path / "run"
    given = [
        "run",
        "--images",
        str(scenes),
        "--proposals",
        str(scene_proposals),
        "--out",
        str(out),
        "--setting",
        "tiny",
    ]
    assert main([*given, *FLAGS]) == 0
    written = yaml.safe_load(RunFolder(out).settings.read_text())
    tiny = yaml.safe_load((NAMED_SETTINGS / "tiny.yaml").read_text())
    assert written["backbone"] == tiny["backbone"] == "resnet10t"
    assert written["negatives"] == tiny["negatives"] == "batch"
    assert written["steps"] == 2
    assert (out / "exported" / "backbone_fpn.safetensors").is_file()


def test_the_help_describes_every_named_setting(capsys):
    assert main(["run", "--help"]) == 0
    shown = "".join(line.strip("│ ") for line in capsys.readouterr().out.splitlines()).replace(" ", "")
    for file in NAMED_SETTINGS.glob("*.yaml"):
        text = file.read_text().splitlines()[0].removeprefix("# ").partition(". ")[0].removesuffix(".")
        assert f"`{file.stem}`({text})".replace(" ", "") in shown


def test_the_papers_setting_is_what_the_defaults_say():
    from ccop_pretrain.settings import RunSettings

    paper = yaml.safe_load((NAMED_SETTINGS / "coco_r50_800ep.yaml").read_text())
    defaults = {name: field.default for name, field in RunSettings.__dataclass_fields__.items()}
    assert {name: defaults[name] for name in paper if name != "save_every"} == {
        name: value for name, value in paper.items() if name != "save_every"
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--images", "{scenes}", "--out", "{out}"], "needs boxes"),
        (["run", "--images", "{out}", "--out", "{out}", "--objective", "mocov2"], "does not exist"),
        (["run", "--images", "{scenes}", "--proposals", "{scenes}", "--out", "{out}"], "no proposals"),
        (["run", "--images", "{scenes}", "--out", "{out}", "--objective", "mocov3"], "mocov3"),
        (["inspect", "--images", "{out}", "--proposals", "{scenes}", "--out", "{out}"], "does not exist"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments, message, scenes, tmp_path, capsys):
    assert main([word.format(scenes=scenes, out=tmp_path / "out") for word in arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("name", [*sorted(path.stem for path in NAMED_SETTINGS.glob("n*.yaml")), "image_only"])
def test_an_ablation_changes_known_settings_of_the_papers_run(name):
    from ccop_pretrain.method.objective import loss_weights
    from ccop_pretrain.settings import ObjectiveSettings

    changes = yaml.safe_load((NAMED_SETTINGS / f"{name}.yaml").read_text())
    changed = ObjectiveSettings(**changes)
    defaults = ObjectiveSettings()
    assert all(
        list(value) != list(getattr(defaults, key)) if isinstance(value, list) else value != getattr(defaults, key)
        for key, value in changes.items()
    )
    left_out = {"image_only": {"box", "intra"}, "no_inter": {"box"}, "no_intra": {"intra"}}.get(name, set())
    assert set(loss_weights(changed)) == {"image", "box", "intra"} - left_out


def test_missing_images_are_refused_before_torch_is_imported(tmp_path):
    code = (
        "import sys; from ccop_pretrain.cli import main\n"
        f"code = main(['run', '--images', {str(tmp_path / 'typo')!r}, '--objective', 'mocov2', '--out', 'run'])\n"
        "assert code == 2, code\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert "typo does not exist" in done.stderr
    assert list(tmp_path.iterdir()) == []
