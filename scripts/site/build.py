"""`make docs`: build the documentation site into build/site.

Gathers the Markdown pages of the repository, generates the reference and the pages of the notebooks, and runs Sphinx.
"""

from __future__ import annotations

import json
import posixpath
import re
import shutil
import sys
import tomllib
from pathlib import Path

from reference import PROGRAMS, program_page, python_page, torch_hub_page
from sphinx.cmd.build import main as sphinx

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
PAGES_ELSEWHERE = {"README.md": "index.md", "CHANGELOG.md": "CHANGELOG.md", "CONTRIBUTING.md": "CONTRIBUTING.md"}
"""Pages that are not in docs/, and their addresses on the site."""

URLS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["urls"]
PICTURES = URLS["Source"].replace("://github.com/", "://raw.githubusercontent.com/") + "/HEAD/"
"""Start of the addresses of pictures in the README, which must be absolute on PyPI."""

LINK = re.compile(r"\]\(([^)\s#:]+)((?:#[^)\s]*)?)\)")


def main(out: Path = ROOT / "build" / "site") -> int:
    """Build the site; every warning, such as a broken link, is an error.

    Args:
        out: folder to write; replaced if it exists.

    Returns:
        Sphinx's exit code.
    """
    source = out.with_name(f"{out.name}-source")
    for folder in (out, source):
        shutil.rmtree(folder, ignore_errors=True)
    gather(source)
    return sphinx(
        ["-b", "html", "-c", str(HERE), "-d", f"{source}/.doctrees", "-W", "--keep-going", "-q", f"{source}", f"{out}"]
    )


def gather(source: Path) -> None:
    """Write every page of the site, and the pictures and files that pages link to, into a folder."""
    pages = {path.relative_to(ROOT / "docs").as_posix(): path.read_text("utf-8") for path in ROOT.glob("docs/**/*.md")}
    pages |= {at: (ROOT / name).read_text("utf-8").replace(PICTURES, "") for name, at in PAGES_ELSEWHERE.items()}
    pages |= {f"notebooks/{path.stem}.md": notebook_page(path) for path in sorted(ROOT.glob("notebooks/*.ipynb"))}
    pages |= {f"reference/{program}.md": program_page(program) for program in PROGRAMS}
    pages |= {"reference/python.md": python_page(), "reference/torch-hub.md": torch_hub_page()}
    pages["index.md"] += (HERE / "contents.md").read_text("utf-8")
    for address, text in pages.items():
        for linked in linked_files(address, text):
            _copy(ROOT / linked, source / linked.removeprefix("docs/"))
        path = source / address
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(LINK.sub(lambda link, at=address: f"]({site_link(at, link[1])}{link[2]})", text), "utf-8")


def _copy(path: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, to)


def source_of(address: str) -> str:
    """Return the path in the repository of a page of the site."""
    elsewhere = {site: name for name, site in PAGES_ELSEWHERE.items()}
    return elsewhere.get(address, address if address.startswith(("notebooks/", "reference/")) else f"docs/{address}")


def target_of(address: str, link: str) -> str:
    """Return the path in the repository that a relative link on a page leads to."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(source_of(address)), link))


def site_link(address: str, link: str) -> str:
    """Convert a link between files of the repository into one between files of the site."""
    target = target_of(address, link)
    if target.endswith(".ipynb"):
        target = f"{target.removesuffix('.ipynb')}.md"
    return posixpath.relpath(
        PAGES_ELSEWHERE.get(target, target.removeprefix("docs/")), posixpath.dirname(address) or "."
    )


def linked_files(address: str, text: str) -> set[str]:
    """Return the files that a page links to and that are not pages themselves."""
    targets = {target_of(address, link) for link, _ in LINK.findall(text)}
    return {target for target in targets if not target.endswith((".md", ".ipynb")) and (ROOT / target).is_file()}


def notebook_page(path: Path) -> str:
    """Convert a notebook into a page; outputs are left out."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    parts = [_cell(cell["cell_type"], "".join(cell["source"])) for cell in cells]
    return "\n\n".join([*parts, f"This page is the notebook `notebooks/{path.name}` of the repository.", ""])


def _cell(kind: str, source: str) -> str:
    return source if kind == "markdown" else f"```python\n{source}\n```"


if __name__ == "__main__":
    raise SystemExit(main(*map(Path, sys.argv[1:])))
