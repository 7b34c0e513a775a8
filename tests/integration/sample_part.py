"""A part of the bundled sample, which trains in seconds: the first customers and the items that most of them bought.

The complete sample is trained on by `tests/docs/test_commands.py`.
"""

from __future__ import annotations

import csv
import gzip
import io
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from recsys_local.sample import ITEMS_FILE, SAMPLE

SERVE_WITH_OTHER_SAMPLE = """
import sys
from pathlib import Path
from recsys_local import cli, sample
sample.SAMPLE = Path(sys.argv.pop(1))
cli.main()
"""


@dataclass(frozen=True)
class SamplePart:
    """Rows of `user_id, item_id, interaction_score, timestamp`, one per pair, and the titles of the items."""

    rows: list[list[str]]
    titles: dict[str, str]

    @classmethod
    def read(cls, *, n_customers: int, n_items: int) -> SamplePart:
        """Cut the part out of the bundled sample."""
        with gzip.open(str(SAMPLE / "online_retail.csv.gz"), "rt", encoding="utf-8") as stream:
            rows = list(csv.reader(stream))[1:]
        customers = set(list(dict.fromkeys(row[0] for row in rows))[:n_customers])
        rows = [row for row in rows if row[0] in customers]
        items = {item for item, _ in Counter(row[1] for row in rows).most_common(n_items)}
        pairs: dict[tuple[str, str], list[str]] = {}
        for row in rows:
            if row[1] in items:
                pairs.setdefault((row[0], row[1]), row)
        catalogue = csv.DictReader((SAMPLE / ITEMS_FILE).read_text(encoding="utf-8").splitlines())
        titles = {row["item_id"]: row["title"].strip() for row in catalogue if row["item_id"] in items}
        return cls(list(pairs.values()), titles)

    def command(self, folder: Path) -> tuple[str | Path, ...]:
        """Return the command `recsys` with this part as its bundled sample, which is written into `folder`."""
        folder.mkdir()
        rows = [["user_id", "item_id", "interaction_score", "timestamp"], *self.rows]
        (folder / "online_retail.csv.gz").write_bytes(gzip.compress(csv_of(rows)))
        (folder / ITEMS_FILE).write_bytes(self.catalogue())
        return sys.executable, "-c", SERVE_WITH_OTHER_SAMPLE, folder

    def shop_export(self, n_rows: int | None = None) -> bytes:
        """Return the first rows as Shopify exports them. All of them by default."""
        header = ["Name", "Email", "Created at", "Lineitem quantity", "Lineitem name", "Lineitem sku"]
        lines = [
            [f"#{number}", email_of(user), f"{time[:10]} {time[11:19]} +0000", n, self.titles.get(item, item), item]
            for number, (user, item, n, time) in enumerate(self.rows[:n_rows], start=1001)
        ]
        return csv_of([header, *lines])

    def catalogue(self) -> bytes:
        """Return the titles as a file of items."""
        return csv_of([["item_id", "title"], *([item, title] for item, title in self.titles.items())])


def email_of(user_id: str) -> str:
    """Return the address by which the shop's export names a customer."""
    return f"{user_id}@shop.example"


def csv_of(rows: list[list[str]]) -> bytes:
    """Return rows as a CSV in UTF-8."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()
