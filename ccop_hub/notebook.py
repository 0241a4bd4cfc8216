"""Render results in notebooks: tables and images as self-contained HTML."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

PICTURE_WIDTH = 1200
"""Maximum width of an image in pixels, to keep notebook files small."""


def summary_html(title: str, values: Mapping[str, object], pictures: Sequence[Path] = ()) -> str:
    """Render a heading, a two-column table and images.

    Args:
        title: heading, as plain text.
        values: first column -> second column, as plain text.
        pictures: image files; missing ones are skipped.
    """
    left = 'style="text-align:left"'
    rows = "".join(
        f"<tr><th {left}>{escape(str(name))}</th><td {left}>{escape(str(value))}</td></tr>"
        for name, value in values.items()
    )
    shown = "".join(_picture(path) for path in pictures if path.is_file())
    return f"<h4>{escape(title)}</h4><table>{rows}</table>{shown}"


def page_html(page: str, height: int = 600) -> str:
    """Embed an HTML page in an iframe, to isolate its styles and scripts.

    Args:
        page: the HTML document.
        height: height of the iframe in pixels.
    """
    return f'<iframe srcdoc="{escape(page)}" width="100%" height="{height}" style="border:0"></iframe>'


def _picture(path: Path) -> str:
    from PIL import Image

    from .images import read_rgb

    image = read_rgb(path)
    if image.width > PICTURE_WIDTH:
        image = image.resize((PICTURE_WIDTH, max(1, image.height * PICTURE_WIDTH // image.width)), Image.Resampling.BOX)
    content = io.BytesIO()
    image.save(content, format="PNG")
    encoded = base64.b64encode(content.getvalue()).decode()
    return f'<figure><img alt="{escape(path.name)}" src="data:image/png;base64,{encoded}"></figure>'
