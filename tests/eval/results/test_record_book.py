import pytest
from ccop_eval.cli import main
from ccop_eval.results.result import DataIdentity, WeightsIdentity


@pytest.fixture
def records(make_result, tmp_path):
    """Two comparable results, the worse one first, and one of another data set, in folders of different depth."""
    plain = {"against": None, "paired": {}, "per_class": {}, "curve": []}
    for folder, name, top1 in (("a", "start", 20.0), ("b/c", "trained|x", 30.0)):
        weights = WeightsIdentity(name=name, digest=f"sha256:{name}", arch="resnet18")
        metrics, intervals = {"top1": top1, "top5": 60.0}, {"top1": (top1 - 2, top1 + 2)}
        result = make_result(weights=weights, metrics=metrics, intervals=intervals, **plain)
        (tmp_path / "records" / folder).mkdir(parents=True)
        result.write(tmp_path / "records" / folder)
    other = make_result(data=DataIdentity(name="zoo", digest="sha256:e", images=5), **plain)
    (tmp_path / "records" / "other").mkdir()
    other.write(tmp_path / "records" / "other")
    return tmp_path / "records"


def rows(text):
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line[:2] == "| "]


def test_rank_comparable_results_with_intervals_and_links_to_their_records(records, tmp_path, capsys):
    page = tmp_path / "docs" / "board.md"
    assert main(["leaderboard", str(records), str(page)]) == 0
    assert "3 rows in 2 tables, 2 plots" in capsys.readouterr().out
    text = page.read_text()
    header, _, best, second, *others = rows(text)
    assert header[1:] == ["weights", "seed", "top1", "top5", "record"]
    assert best == ["1", r"trained\|x", "3", "30.0 [28.0, 32.0]", "60.0", "[json](../records/b/c/result.json)"]
    assert second[:4] == ["2", "start", "3", "20.0 [18.0, 22.0]"]
    assert len(others) == 3
    plots = sorted((tmp_path / "docs" / "board-plots").glob("*.svg"))
    assert [plot.name.split("-sweep-")[1][:3] for plot in plots] == ["toy", "zoo"]
    assert all(f"board-plots/{plot.name}" in text for plot in plots)


def test_check_finds_a_page_that_no_longer_agrees(records, tmp_path, make_result, capsys):
    page = tmp_path / "board.md"
    command = ["leaderboard", str(records), str(page)]
    assert main([*command, "--check"]) == 1
    assert not page.exists()
    assert capsys.readouterr().out.splitlines()[-1] == f"next: ccop-eval leaderboard {records} {page}"
    assert main(command) == 0
    assert main([*command, "--check"]) == 0
    plot = next((tmp_path / "board-plots").iterdir())
    content = plot.read_text()
    plot.unlink()
    assert main([*command, "--check"]) == 1
    plot.write_text(content)
    assert main([*command, "--check"]) == 0
    left, own = plot.with_name("knn-earlier-0123abcd.svg"), plot.with_name("drawing.svg")
    left.write_text(content)
    own.write_text(content)
    assert main([*command, "--check"]) == 1
    assert main(command) == 0
    assert not left.exists()
    assert own.exists()
    assert main([*command, "--check"]) == 0
    make_result(metrics={"top1": 99.0}, against=None, paired={}).write(records / "a")
    assert main([*command, "--check"]) == 1


def test_a_network_that_several_records_repeat_has_one_row(records, tmp_path, make_result):
    page = tmp_path / "board.md"
    weights = WeightsIdentity(name="start", digest="sha256:start", arch="resnet18")
    metrics = {"top1": 20.0, "top5": 60.0}
    make_result(weights=weights, metrics=metrics, against=None, paired={}).write(records / "again" / "result.json")
    assert main(["leaderboard", str(records), str(page)]) == 0
    assert [row[1] for row in rows(page.read_text())].count("start") == 1


def test_keep_the_text_around_the_tables(records, tmp_path):
    page = tmp_path / "board.md"
    page.write_text("# Ours\n\nBefore.\n\n<!-- leaderboard -->\nold\n<!-- end of leaderboard -->\n\nAfter.\n")
    assert main(["leaderboard", str(records), str(page)]) == 0
    text = page.read_text()
    assert text.startswith("# Ours\n\nBefore.\n")
    assert text.endswith("\n\nAfter.\n")
    assert "old" not in text
    assert main(["leaderboard", str(records), str(page)]) == 0
    assert page.read_text() == text


def test_refuse_a_folder_without_results(tmp_path, capsys):
    assert main(["leaderboard", str(tmp_path), str(tmp_path / "board.md")]) == 2
    assert "contains no result.json" in capsys.readouterr().err
