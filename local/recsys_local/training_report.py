"""The training report, an HTML page with the metrics of a model. Browsers show it without a network connection.

The page contains its script, its style sheet and its data. The script is built from the same components as the console
(`functions/api/console/src/report_page.tsx`), so that both show the same plots.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import json
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, Self

from recsys.file_options import FileOptions
from recsys.model import artifact
from recsys.settings import Settings
from recsys_api.static_files import asset
from recsys_local.item_map import map_items
from recsys_local.offline import check_writable

SCRIPT: Final = "report.js"
STYLE: Final = "console.css"
LICENCES: Final = "console-LICENSES.txt"
_TEMPLATE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<!-- The script contains these packages:

{licences}-->
<div id="app"></div>
<noscript>This report is drawn by JavaScript. The same numbers are in metrics.json.</noscript>
<script type="application/json" id="report">{data}</script>
<script>{script}</script>
</body>
</html>
"""


@dataclass(frozen=True, slots=True)
class ReportPlan:
    """The path of a training report, and the titles that the report shows. Both are checked before the training.

    Parameters
    ----------
    path
        File to create or overwrite. None means that no report is written.
    titles
        Titles of items by their ids.
    """

    path: Path | None
    titles: Mapping[str, str]

    @classmethod
    def of(cls, path: Path | None, items: Path | None, settings: Settings) -> Self:
        """Check that the report can be written, and read the titles from the file `items`.

        Call this method before the training, so that an error is reported before time is spent on the training.

        Raises
        ------
        OutputNotWritable
            The folder of `path` cannot be written.
        InvalidData
            `items` cannot be read as an item catalogue.
        """
        if path is not None:
            check_writable(path.parent)
        return cls(path, read_titles(items, settings) if items is not None else {})

    def write(self, metrics: dict[str, Any], folder: Path, *, source_name: str) -> None:
        """Write the report unless `path` is None. The parameters are those of `write_report`."""
        if self.path is not None:
            write_report(self.path, metrics, folder, source_name=source_name, titles=self.titles)


def write_report(
    path: Path, metrics: dict[str, Any], folder: Path, *, source_name: str, titles: Mapping[str, str]
) -> None:
    """Write the training report of a model.

    Parameters
    ----------
    path
        File to create or overwrite.
    metrics
        The contents of `metrics.json`.
    folder
        Directory with the files of the model.
    source_name
        Name of the file of interactions, for the title of the page.
    titles
        Titles of items by their ids.
    """
    data = {"source": source_name, "metrics": metrics, "items": map_items(artifact.read_folder(folder), titles)}
    path.write_text(render(data), encoding="utf-8")


def render(data: dict[str, Any]) -> str:
    """Return the HTML page of a report.

    The content security policy of the page permits the inline script and the inline style by their digests, and permits
    no requests. `<` is escaped in the data, so that the title of an item cannot end the script element of the data.

    Parameters
    ----------
    data
        JSON object with the members `source` (name of the file of interactions), `metrics` (contents of `metrics.json`)
        and `items` (result of `map_items`).
    """
    script, style = _script(), asset(STYLE).content.decode()
    policy = f"default-src 'none'; script-src {_digest(script)}; style-src {_digest(style)}; base-uri 'none'"
    return _TEMPLATE.format(
        title=html.escape(f"Training on {data['source']}"),
        policy=policy,
        licences=files("recsys_api").joinpath("static", LICENCES).read_text("utf-8"),
        style=style,
        data=json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"),
        script=script,
    )


def read_titles(path: Path, settings: Settings) -> dict[str, str]:
    """Return the titles of items by item id, read from a file in the format of the item catalogue.

    Raises
    ------
    InvalidData
        The file cannot be read as an item catalogue.
    """
    from recsys_train.catalogue.records import read_records  # noqa: PLC0415  # imports pyarrow
    from recsys_train.catalogue.report import CatalogueReport  # noqa: PLC0415  # as above
    from recsys_train.catalogue.update import read_updates  # noqa: PLC0415  # as above
    from recsys_train.data.unpack import Limits, unpack  # noqa: PLC0415  # as above

    report = CatalogueReport()
    limits = Limits(settings.max_unpacked_bytes, settings.read_budget_s)
    with closing(path.open("rb")) as stream, unpack(stream, limits) as unpacked:
        updates = read_updates(read_records(unpacked, FileOptions(), report), None, report)
    titles = updates.values.get("title", {})
    return {item_id: str(titles[row]).strip() for item_id, row in updates.items.items() if titles.get(row)}


def _script() -> str:
    stored = files("recsys_local").joinpath("static", f"{SCRIPT}.gz").read_bytes()
    return gzip.decompress(stored).decode()


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
