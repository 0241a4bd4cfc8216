import os
from types import SimpleNamespace

import pytest
from ccop_eval.detection.engine import load_engine

load_engine()

from ccop_eval.detection.trainer import Trainer  # noqa: E402 - imports Detectron2


@pytest.mark.parametrize(("name", "tensorboard"), [("run", True), (os.fsdecode(b"caf\xe9"), False)])
def test_tensorboard_is_left_out_of_a_folder_that_it_cannot_name(tmp_path, name, tensorboard):
    (tmp_path / name).mkdir()
    trainer = Trainer.__new__(Trainer)
    trainer.cfg, trainer.max_iter = SimpleNamespace(OUTPUT_DIR=str(tmp_path / name)), 3
    names = [type(writer).__name__ for writer in trainer.build_writers()]
    expected = ["CommonMetricPrinter", "JSONWriter", *(["TensorboardXWriter"] if tensorboard else []), "Progress"]
    assert names == expected
    assert (tmp_path / name / "metrics.json").is_file()
