"""MkDocs hook that renders Mermaid code blocks to inline SVG while the site is built.

Material for MkDocs loads Mermaid from a CDN in the reader's browser. `mermaidx` runs the same Mermaid library in an
embedded JavaScript engine instead, so that the built site needs neither a network connection nor JavaScript.
"""

from __future__ import annotations

import itertools
from typing import Any, Final

import mermaidx

_SVG_ID: Final = "my-svg"
"""The id that mermaidx gives every diagram; ids must be unique within a page."""

_diagram_numbers: Final = itertools.count(1)


def on_config(config: Any) -> Any:
    """Register `render` for code blocks marked `mermaid`."""
    superfences = config.mdx_configs.setdefault("pymdownx.superfences", {})
    superfences["custom_fences"] = [{"name": "mermaid", "class": "mermaid-svg", "format": render}]
    return config


def render(source: str, _language: str, css_class: str, _options: Any, _markdown: Any, **_: Any) -> str:
    """Return the diagram as an HTML figure; an error in `source` ends the build."""
    svg = mermaidx.render(source).svg()
    return f'<figure class="{css_class}">{svg.replace(_SVG_ID, f"diagram-{next(_diagram_numbers)}")}</figure>'
