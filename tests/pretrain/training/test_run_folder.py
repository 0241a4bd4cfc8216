import dataclasses

import pytest
import yaml
from ccop_pretrain.training.run_folder import RunFolder, RunState

from ccop_hub.errors import UserError


def test_new_then_unfinished_then_finished(tiny_run):
    settings = tiny_run()
    folder = RunFolder(settings.out)
    assert folder.prepare(settings) is RunState.NEW
    assert yaml.safe_load(folder.settings.read_text())["steps"] == 5
    assert folder.prepare(dataclasses.replace(settings, workers=2)) is RunState.UNFINISHED
    folder.exported.mkdir()
    (folder.exported / "facts.json").write_text("{}")
    assert folder.prepare(settings) is RunState.FINISHED


def test_a_run_of_other_settings_is_not_touched_unless_asked(tiny_run):
    settings = tiny_run()
    folder = RunFolder(settings.out)
    folder.prepare(settings)
    folder.metrics.write_text("kept")
    with pytest.raises(UserError, match=r"jitters \(2 there, 3 now\).*--overwrite true"):
        folder.prepare(tiny_run(jitters=3))
    assert folder.metrics.read_text() == "kept"
    assert folder.prepare(tiny_run(jitters=3, overwrite=True)) is RunState.NEW
    assert not folder.metrics.exists()
    assert yaml.safe_load(folder.settings.read_text())["jitters"] == 3


def test_a_folder_of_something_else_is_left_alone(tiny_run, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="not a run"):
        RunFolder(tmp_path).prepare(tiny_run(out=tmp_path, overwrite=True))
    assert (tmp_path / "thesis.tex").exists()
    with pytest.raises(UserError, match="is a file"):
        RunFolder(tmp_path / "thesis.tex").prepare(tiny_run())
