import os
import stat
import subprocess
import sys
from pathlib import Path

import numba
import pytest
from ccop_pretrain.proposals.fast_search import compilation

# One of the five modules, which compiles in two seconds, and its expected output.
SCRIPT = """
import sys
import numpy
from ccop_pretrain.proposals.fast_search import compilation
compilation._KERNELS = ("colour_spaces",)
compilation.load_kernels()
from ccop_pretrain.proposals.fast_search import colour_spaces
grey = colour_spaces.grey(numpy.full((1, 1, 3), 9, numpy.uint8))
print(grey[0, 0, 0], sum(colour_spaces.grey.stats.cache_misses.values()))
print(compilation._folder())
"""


def start(**variables: str) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"} | variables
    command = [sys.executable, "-c", SCRIPT]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def finished(process: subprocess.Popen[str]) -> list[str]:
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    return output.split()


def test_of_many_processes_at_once_one_compiles(tmp_path: Path) -> None:
    outcomes = [finished(process) for process in [start(CCOP_CACHE=str(tmp_path)) for _ in range(4)]]
    assert {outcome[0] for outcome in outcomes} == {"9"}
    assert sorted(int(outcome[1]) for outcome in outcomes) == [0, 0, 0, 1]
    (folder,) = {Path(outcome[2]) for outcome in outcomes}
    assert folder.parent == tmp_path / "kernels"
    assert (folder / "complete").exists()
    assert finished(start(CCOP_CACHE=str(tmp_path)))[1] == "0"


def test_numbas_own_variable_comes_first(tmp_path: Path) -> None:
    outcome = finished(start(CCOP_CACHE=str(tmp_path / "cache"), NUMBA_CACHE_DIR=str(tmp_path / "numba")))
    assert Path(outcome[2]).parent == tmp_path / "numba"
    assert not (tmp_path / "cache").exists()


def test_a_cache_that_cannot_be_written_is_replaced_for_the_time_being(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    outcome = finished(start(CCOP_CACHE=str(tmp_path / "file")))
    assert outcome[0] == "9"
    assert not Path(outcome[2]).exists()  # removed at exit


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_cache_is_replaced_for_the_time_being(tmp_path: Path) -> None:
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    assert finished(start(CCOP_CACHE=str(tmp_path)))[0] == "9"


def test_other_users_of_numba_keep_their_cache() -> None:
    before = numba.config.CACHE_DIR
    compilation.load_kernels()
    assert before == numba.config.CACHE_DIR


def test_only_searching_imports_numba() -> None:
    script = (
        "import sys\n"
        "from ccop_pretrain.cli import main\n"
        "import ccop_pretrain.proposals.run, ccop_hub.proposals.store\n"
        "print('numba' in sys.modules)\n"
    )
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "False"


def test_no_kernel_may_reorder_or_fuse_floating_point() -> None:
    """Boxes must be the same on all processors."""
    compilation.load_kernels()
    for name in compilation._KERNELS:
        module = sys.modules[f"{compilation.__package__}.{name}"]
        kernels = [value for value in vars(module).values() if isinstance(value, numba.core.dispatcher.Dispatcher)]
        assert kernels
        assert not any(kernel.targetoptions.get("fastmath") for kernel in kernels)
