import base64
import dataclasses
import html
import html.parser
import os
import shutil
import subprocess

import pytest
from ccop_eval.cli import main
from ccop_eval.results.result import DataIdentity, Interval, WeightsIdentity

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
REQUIRED = "CCOP_TEST_BROWSER"
"""Environment variable that makes tests fail instead of skip if there is no browser."""

needs_chromium = pytest.mark.skipif(
    CHROMIUM is None and REQUIRED not in os.environ, reason="no chromium on PATH: apt-get install chromium"
)


class Tables(html.parser.HTMLParser):
    """Parses every table's rows (class, digest, value by metric), the pictures, and the root's attributes."""

    def __init__(self):
        super().__init__()
        self.tables, self.images, self.root, self.text, self.title = [], [], {}, "", ""
        self.tag = ""

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tag = tag
        if tag == "html":
            self.root = values
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.row = {"class": values.get("class"), "digest": values.get("data-digest")}
            self.tables[-1].append(self.row)
        if tag == "td" and "data-metric" in values:
            self.row[values["data-metric"]] = float(values["data-value"]) if "data-value" in values else None
        if tag == "img":
            self.images.append(values)

    def handle_data(self, data):
        self.text += data
        if self.tag == "title":
            self.title += data


def view(file, tmp_path, *flags):
    """Load a page in a browser; returns the rendered tables and all browser errors."""
    assert CHROMIUM is not None, f"{REQUIRED} is set, but there is no chromium on PATH: apt-get install chromium"
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        f"--user-data-dir={tmp_path}/user",
    ]
    network = ["--disable-background-networking", "--no-first-run", "--proxy-server=127.0.0.1:9"]
    done = subprocess.run(
        [CHROMIUM, *options, *network, *flags, "--dump-dom", file.as_uri()],
        capture_output=True,
        text=True,
        timeout=900,
        check=True,
    )
    tables = Tables()
    tables.feed(done.stdout)
    return tables, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.fixture
def results(make_result, tmp_path):
    moco = {
        "task": "linear",
        "protocol": "linear-moco-lr30",
        "data": DataIdentity(name="imagenet", digest="sha256:in", images=50_000),
    }
    own = make_result(
        **moco,
        curve=[{"step": 1, "val/top1": 20.0}, {"step": 2, "val/top1": 51.25}],
        per_class={"top1": {"cat": 10.0, "<dog>": 60.0}},
    )
    own = dataclasses.replace(
        own, against=dataclasses.replace(own.against, per_class={"top1": {"cat": 15.0, "<dog>": 40.0}})
    )
    second = make_result(
        **moco,
        weights=WeightsIdentity(name="<b>second</b>", digest="sha256:3", arch="resnet18"),
        metrics={"top1": 48.123456789, "top5": None},
        paired={"top1": Interval(difference=-2.0, low=-2.5, high=-1.5)},
        per_class={"top1": {"cat": 30.0, "<dog>": 20.0}},
    )
    departed = make_result(task="linear", protocol="linear-moco-lr30+epochs=1", data=moco["data"])
    return [str(r.write(tmp_path / f"{n}.json")) for n, r in enumerate((own, second, departed))]


def test_page_holds_the_results_and_loads_nothing(results, tmp_path):
    page = tmp_path / "page.html"
    assert main(["compare", *results, "--html", str(page)]) == 0
    text = page.read_text()
    tables = Tables()
    tables.feed(text)
    assert [len(table) - 1 for table in tables.tables] == [5, 2], "three measured and two published; two measured"
    assert [image["alt"] for image in tables.images] == [
        "linear: values with their 95 % intervals",
        "linear: learning curves",
        "linear: per-class differences",
        "linear: values with their 95 % intervals",
    ]
    assert all(image["src"].startswith("data:image/svg+xml;base64,") for image in tables.images)
    assert "http:" not in text.replace("http-equiv", "")
    assert "https:" not in text
    assert "<b>second" not in text
    assert "<b>second</b>" in tables.text


@needs_chromium
def test_page_in_a_browser_shows_the_results_numbers_without_an_error(results, tmp_path):
    page = tmp_path / "page.html"
    assert main(["compare", *results, "--html", str(page)]) == 0
    tables, complaints = view(page, tmp_path)
    assert complaints == []
    assert tables.root.get("data-ready") == "true", "the page's script ran to its end"
    rows = {row["digest"]: row for row in tables.tables[0][1:] if row["class"] is None}
    assert rows["sha256:2"]["top1"] == 50.25
    assert rows["sha256:1"]["top1"] == 51.25
    assert rows["sha256:3"]["top1"] == 48.123456789
    assert rows["sha256:3"]["top5"] is None
    assert "(-2.1 [-2.5, -1.5])" in tables.text
    assert {row["top1"] for row in tables.tables[0] if row["class"] == "published"} == {71.1, 67.7}
    assert all(row["class"] is None for row in tables.tables[1]), "a departed protocol has no published numbers"


HOSTILE = "[/red]x $\\x{ <b>b</b> \x1b[31m \u202eevil |_`*"
VISIBLE = r"[/red]x $\x{ <b>b</b> \x1b[31m \u202eevil |_`*"


@pytest.fixture
def hostile(make_result, tmp_path):
    """A result in which every name contains markup."""
    values = {HOSTILE: 10.0, "cat": 20.0}
    result = make_result(
        task=HOSTILE,
        protocol=HOSTILE,
        weights=WeightsIdentity(name=HOSTILE, digest="sha256:9", arch="resnet18"),
        data=DataIdentity(name=HOSTILE, digest=HOSTILE, images=12),
        metrics={HOSTILE: 50.0},
        per_class={HOSTILE: values},
        curve=[{"step": 1, HOSTILE: 1.0}, {"step": 2, HOSTILE: 2.0}],
        notes=[HOSTILE],
        paired={},
    )
    against = dataclasses.replace(result.against, metrics={HOSTILE: 40.0}, per_class={HOSTILE: values})
    return str(dataclasses.replace(result, against=against).write(tmp_path / "hostile.json"))


def test_names_reach_every_output_as_text(hostile, tmp_path, capsys):
    files = {name: tmp_path / f"out.{name}" for name in ("html", "markdown", "csv")}
    assert main(["compare", hostile, *(word for name, file in files.items() for word in (f"--{name}", str(file)))]) == 0
    printed = capsys.readouterr().out
    assert VISIBLE in printed
    tables = Tables()
    tables.feed(files["html"].read_text())
    assert tables.text.count(VISIBLE) >= 6, "task, protocol, data, digest, weights, metric, note"
    assert tables.tables[0][1][VISIBLE] == 40.0
    assert len(tables.images) == 3
    for text in (printed, *(file.read_text() for file in files.values())):
        assert "\x1b" not in text
        assert "\u202e" not in text
    svg = base64.b64decode(tables.images[2]["src"].partition(",")[2]).decode()
    assert html.escape(VISIBLE[-33:], quote=False) in svg, "class names are drawn as they are"
    assert r"\[/red\]x \$\\x{ \<b\>b\</b\>" in files["markdown"].read_text()


@needs_chromium
def test_page_fits_a_telephone(results, tmp_path):
    page = tmp_path / "page.html"
    assert main(["compare", *results, "--html", str(page)]) == 0
    # Browsers enforce a minimum window width, but not a minimum frame width.
    (tmp_path / "frame.html").write_text(
        "<iframe id=f width=400 height=900 src=page.html></iframe>"
        "<script>onload = () => { const d = document.getElementById('f').contentDocument.documentElement;"
        " document.title = `${d.scrollWidth} of ${d.clientWidth}`; }</script>"
    )
    tables, _ = view(tmp_path / "frame.html", tmp_path, "--allow-file-access-from-files")
    wide, available = map(int, tables.title.split(" of "))
    assert wide <= available


@needs_chromium
def test_browser_check_sees_an_error(tmp_path):
    broken = tmp_path / "broken.html"
    broken.write_text("<html><script>undefinedFunction()</script></html>")
    _, complaints = view(broken, tmp_path)
    assert len(complaints) == 1
