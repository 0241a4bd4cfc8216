import pytest
from ccop_eval.common.run_folder import RunFolder, check_folder
from ccop_eval.settings import KnnSettings
from lightning.fabric import Fabric

from ccop_hub.errors import UserError


def test_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").touch()
    check_folder(tmp_path)
    check_folder(tmp_path / "new" / "folder")
    with pytest.raises(UserError, match="file is a file: give a folder as --out"):
        check_folder(tmp_path / "file")
    with pytest.raises(UserError, match=r"cannot be made \(.*file: is a file\): give another --out"):
        check_folder(tmp_path / "file" / "below" / "it")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_file_in_place_of_the_folder_is_never_touched(tmp_path, overwrite):
    (tmp_path / "file").write_text("mine")
    settings = KnnSettings("w", tmp_path, tmp_path / "file", overwrite=overwrite)
    with pytest.raises(UserError, match="is a file"):
        RunFolder(Fabric(accelerator="cpu", devices=1), settings)
    assert (tmp_path / "file").read_text() == "mine"
