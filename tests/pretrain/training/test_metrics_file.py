import tracemalloc

import pytest
from ccop_pretrain.training.metrics_file import MetricsFile

from ccop_hub.errors import UserError


def test_rows_are_written_at_once_and_a_new_column_joins(tmp_path):
    path = tmp_path / "metrics.csv"
    metrics = MetricsFile(path)
    metrics.log_metrics({"loss": 1.25}, step=1)
    assert path.read_text() == "step,loss\n1,1.25\n"
    metrics.log_metrics({"loss": 1.0, "lr": 0.5}, step=2)
    assert path.read_text() == "step,loss,lr\n1,1.25,\n2,1,0.5\n"


def test_going_on_drops_later_rows_and_one_cut_short(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("step,loss\n1,3\n2,2\n3,1\n4,0.5")
    metrics = MetricsFile(path)
    metrics.keep_until(2)
    metrics.log_metrics({"loss": 9}, step=3)
    assert path.read_text() == "step,loss\n1,3\n2,2\n3,9\n"
    path.write_text("step,loss\n1,3\n2,2")
    MetricsFile(path).keep_until(5)
    assert path.read_text() == "step,loss\n1,3\n"


def test_damaged_rows_are_left_out_and_damaged_values_named(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("step,loss\n1,3\nx,7\n-1,7\n2.5,7\n\n2\n")
    metrics = MetricsFile(path)
    metrics.keep_until(9)
    assert path.read_text() == "step,loss\n1,3\n2,\n"
    assert metrics.last() == {"step": 2, "loss": 3}
    for content in (b"step,loss\n1,much\n", b"step,loss\n1,\xff\n", b"step,loss\n1," + b"9" * 200_000 + b"\n"):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"metrics\.csv is damaged .*: delete it"):
            metrics.last()


def test_millions_of_rows_take_no_memory(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("step,loss\n" + "1,2\n" * 200_000 + "9,3\n")
    metrics = MetricsFile(path)
    tracemalloc.start()
    try:
        metrics.keep_until(8)
        last = metrics.last()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert last == {"step": 1, "loss": 2}
    assert path.stat().st_size == len("step,loss\n") + 200_000 * len("1,2\n")
    assert peak < 4 << 20


def test_endless_rows_are_refused(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("step,loss\n" + "1," * 600_000 + "\n")
    with pytest.raises(UserError, match=r"metrics\.csv is damaged \(a row of more than"):
        MetricsFile(path).keep_until(8)
