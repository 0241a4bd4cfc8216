import os
import subprocess
import sys
from pathlib import Path

import pytest
from ccop_pretrain.common.folder_lock import folder_lock

from ccop_hub.errors import UserError

pytest.importorskip("fcntl")

HOLD = """
import sys
from pathlib import Path
from ccop_pretrain.common.folder_lock import folder_lock
with folder_lock(Path(sys.argv[1]), shared=sys.argv[2] == "shared"):
    print("held", flush=True)
    sys.stdin.read()
"""


def hold(folder: Path, kind: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", HOLD, str(folder), kind]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_writer_is_refused_by_name_until_the_first_is_gone(tmp_path: Path) -> None:
    with hold(tmp_path, "alone") as process:
        for shared in (False, True):
            with (
                pytest.raises(UserError, match=rf"is being written by process {process.pid} on "),
                folder_lock(tmp_path, shared=shared),
            ):
                pass
        process.kill()
    with folder_lock(tmp_path):
        assert str(os.getpid()) in (tmp_path / ".lock").read_text()
    assert list(tmp_path.iterdir()) == []


def test_shared_holders_keep_a_single_one_out(tmp_path: Path) -> None:
    with hold(tmp_path, "shared") as process:
        with folder_lock(tmp_path, shared=True):
            pass
        with pytest.raises(UserError, match="written by other processes"), folder_lock(tmp_path):
            pass
        process.kill()
    with folder_lock(tmp_path), folder_lock(tmp_path, name="another"):
        pass
    assert list(tmp_path.iterdir()) == []
