"""The tables of docs/performance.md and docs/proposals.md are those of the benchmarks' results."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location("benchmark_tables", BENCHMARKS / "tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.delitem(sys.modules, "machine", raising=False)
    return module


@pytest.mark.parametrize("name", ["performance", "proposals"])
def test_every_table_on_a_page_is_that_of_the_results(tables: ModuleType, name: str) -> None:
    (path,) = (path for path in tables.PAGES if path.stem == name)
    page = path.read_text(encoding="utf-8")
    assert re.findall(r"<!-- table: ([\w -]+) -->", page)
    assert tables.filled(page) == page, "run: python benchmarks/tables.py"


def test_numbers_come_from_the_results(tables: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"scaling": {"images": 7, "seconds": {"merge": {"median": 0.5, "least": 0.25, "greatest": 2}}}}
    found["scaling"]["two processes over one"] = {"median": 1.9, "least": 1.8, "greatest": 2.0}
    monkeypatch.setattr(tables, "results", lambda name: found)
    page = tables.filled("before\n<!-- table: shards -->\nold\n<!-- end of table -->\nafter")
    assert "| merge | 500 ms (250 ms to 2 s) |" in page
    assert "| two processes over one | 1.90 (1.80 to 2.00) |" in page
    assert "old" not in page
    assert page.startswith("before\n")
    assert page.endswith("\nafter")
