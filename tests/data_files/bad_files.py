"""Bad files: the code of their problem, and the line and column that the problem must name."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from tests.data_files.made_files import ITEMS, PAIRS, USERS, gz, parquet, table, with_score, with_time, zipped, zstd

PLAIN = table().encode()
LONG = table(rows=[f"u{row},i{row % 7}" for row in range(500)]).encode()


@dataclass(frozen=True)
class BadFile:
    """A file that is rejected."""

    name: str
    content: bytes
    code: str
    says: str = ""
    """Text that must be in the detail or the hint."""
    options: dict[str, Any] = field(default_factory=dict)
    line: int | None = None
    column: str | None = None


BAD_FILES = [
    BadFile("empty-lines", b"\n \n\n", "empty-file"),
    BadFile("only-bom", b"\xef\xbb\xbf", "empty-file"),
    BadFile("only-comments", b"# a\n# b\n", "empty-file"),
    BadFile("empty-gzip", gz(b""), "empty-file"),
    BadFile("header-only", b"user_id,item_id\n", "no-rows"),
    BadFile("blank-rows-only", b"user_id,item_id\n,\n,\n", "no-rows"),
    BadFile("no-header", b"17850,85123A\n17850,71053\n", "missing-column", "must be the header"),
    BadFile("no-item", b"user_id,price\na,1\n", "missing-column", "item=…"),
    BadFile("unknown-names", b"Kunde;Artikel\na;b\n", "missing-column", "user=…"),
    BadFile("colons", b"user_id:item_id\na:b\n", "missing-column"),
    BadFile("two-users", b"email,customer_id,sku\na,b,c\n", "ambiguous-column", "'email' and 'customer_id'"),
    BadFile("two-items", b"user_id,sku,product_id\na,b,c\n", "ambiguous-column", "item=sku"),
    BadFile("two-times", b"user_id,item_id,created_at,order_date\na,b,,\n", "ambiguous-column", "time=-"),
    BadFile("two-scores", b"user_id,item_id,quantity,rating\na,b,1,1\n", "ambiguous-column", "score="),
    BadFile("repeated-user", b"user_id,item_id,USER_ID\na,b,c\n", "duplicate-column"),
    BadFile("events-without-a-column", PLAIN, "missing-column", "option event", {"events": ["purchase"]}),
    BadFile("option-names-no-column", PLAIN, "missing-column", "'buyer'", {"user": "buyer"}),
    BadFile("option-names-repeated", b"x,x,item_id\na,b,c\n", "duplicate-column", "", {"user": "x"}),
    BadFile("same-column-twice", PLAIN, "duplicate-column", "both the user and the item", {"item": "user_id"}),
    BadFile("unknown-sep", b"sep=:\nuser_id:item_id\n", "unsupported-delimiter", "sep=':'"),
    BadFile("wrong-delimiter", PLAIN, "missing-column", "", {"delimiter": "tab"}),
    BadFile("big5-header", "商品,使用者,時間\n茶葉,牛奶,今天\n".encode("big5"), "not-utf8", "declare charset=big5."),
    BadFile("latin-1-header", "Größe,user_id,item_id\n1,a,b\n".encode("latin-1"), "not-utf8", "charset="),
    BadFile("latin-1-ids", table(rows=["é,a", "ü,b", "ö,c"]).encode("latin-1"), "too-many-bad-lines", "charset=",
            line=2, column="user_id"),
    BadFile("utf-16-without-bom", PLAIN.decode().encode("utf-16-le"), "not-utf8", "charset=utf-16-le"),
    BadFile("utf-16-be-without-bom", PLAIN.decode().encode("utf-16-be"), "not-utf8", "charset=utf-16-be"),
    BadFile("utf-16-odd-byte", PLAIN.decode().encode("utf-16") + b"x", "wrong-charset"),
    BadFile("wrong-charset", table(rows=["é,a", "b,c"]).encode(), "wrong-charset", "ascii", {"charset": "ascii"}),
    BadFile("binary", bytes(range(256)) * 50, "not-a-csv"),
    BadFile("control-characters", b"\x00\x01\x02\x03" * 1000, "not-a-csv"),
    BadFile("png", b"\x89PNG\r\n\x1a\n" + b"\x00" * 100, "not-a-csv"),
    BadFile("pdf", b"%PDF-1.7\n", "unsupported-compression", "PDF"),
    BadFile("xls", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "unsupported-compression", "Excel"),
    BadFile("xlsx", zipped({"[Content_Types].xml": b"x", "xl/workbook.xml": b"x"}), "unsupported-compression", "Excel"),
    BadFile("bzip2", b"BZh91AY&SY", "unsupported-compression", "bzip2"),
    BadFile("xz", b"\xfd7zXZ\x00", "unsupported-compression", "xz"),
    BadFile("7z", b"7z\xbc\xaf\x27\x1c", "unsupported-compression", "7-Zip"),
    BadFile("rar", b"Rar!\x1a\x07", "unsupported-compression", "RAR"),
    BadFile("gzip-in-gzip-bzip2", gz(b"BZh91AY&SY"), "unsupported-compression"),
    BadFile("gzip-truncated", gz(LONG)[:-20], "damaged-gzip", "gzip -t"),
    BadFile("gzip-flipped", gz(LONG)[:200] + b"\xff" * 20 + gz(LONG)[220:], "damaged-gzip"),
    BadFile("gzip-magic-only", b"\x1f\x8b no gzip", "damaged-gzip"),
    BadFile("zstd-truncated", zstd(LONG)[:-9], "damaged-zstd", "zstd -t"),
    BadFile("zstd-garbage", b"\x28\xb5\x2f\xfd" + b"garbage" * 5, "damaged-zstd"),
    BadFile("zip-truncated", zipped({"orders.csv": LONG})[:100], "damaged-zip", "unzip -t"),
    BadFile("zip-empty", zipped({}), "unsupported-archive", "exactly one"),
    BadFile("zip-two", zipped({"a.csv": PLAIN, "b.csv": PLAIN}), "unsupported-archive", "'a.csv', 'b.csv'"),
    BadFile("parquet-truncated", parquet({"user_id": USERS, "item_id": ITEMS})[:-10], "damaged-parquet"),
    BadFile("parquet-magic", b"PAR1" + b"x" * 100, "damaged-parquet"),
    BadFile("parquet-float-ids", parquet({"user_id": pa.array([1.0, 2, 3, 4]), "item_id": ITEMS}),
            "unsupported-column-type", "to text or an integer before you write the file, because ids lose digits"),
    BadFile("parquet-list", parquet({"user_id": USERS, "item_id": pa.array([["a"]] * 4)}), "unsupported-column-type",
            "to text or an integer before you write the file."),
    BadFile("parquet-other-names", parquet({"a": USERS, "b": ITEMS}), "missing-column"),
    BadFile("unclosed-quote", PLAIN + b'x,"y\n' + b"a,b\n" * 3_000_000, "unclosed-quote", "double quote"),
    BadFile("swallowed-lines", PLAIN + b'"x,y\n' + b"a,b\n" * 50, "too-many-bad-lines", "`errors` lists them.", line=6),
    BadFile("ragged", table(rows=["a,b", "a,b,c", "b,c"]).encode(), "too-many-bad-lines", "ragged-line", line=3),
    BadFile("blank-item", table(rows=["a,b", "a,", "b,c"]).encode(), "too-many-bad-lines", line=3, column="item_id"),
    BadFile("long-id", table(rows=["a,b", f"{'x' * 513},b"]).encode(), "too-many-bad-lines", line=3, column="user_id"),
    BadFile("line-break-id", table(rows=["a,b", '"x\ny",b']).encode(), "too-many-bad-lines", line=3, column="user_id"),
    BadFile("word-score", with_score("1", "many", "1", "1"), "too-many-bad-lines", line=3, column="interaction_score"),
    BadFile("infinite-score", with_score("1", "1", "inf", "1"), "too-many-bad-lines", line=4,
            column="interaction_score"),
    BadFile("thousands", with_score("1", "1", "1", "1.234,50"), "too-many-bad-lines", "",
            line=5, column="interaction_score"),
    BadFile("mixed-decimals", with_score("1,5", "2.5", "1", "1"), "mixed-decimals", "decimal=comma"),
    BadFile("ambiguous-date", with_time("01/02/2026", "01/03/2026", "02/03/2026", "03/03/2026"), "ambiguous-date",
            "time_format=day-first"),
    BadFile("mixed-dates", with_time("13/02/2026", "01/03/2026", "02/13/2026", "03/03/2026"), "mixed-dates",
            "Received 1 that can only be day-first, such as '13/02/2026', and 1 that can only be month-first, such as "
            "'02/13/2026'."),
    BadFile("word-date", with_time("2026-03-01", "yesterday", "2026-03-02", "2026-03-03"), "too-many-bad-lines",
            line=3, column="timestamp"),
    BadFile("impossible-date", with_time("2026-02-30", "2026-03-01", "2026-03-02", "2026-03-03"), "too-many-bad-lines",
            line=2, column="timestamp"),
    BadFile("date-number-among-unix", with_time("1772323200", "1772323200", "1772323200", "20260301"),
            "too-many-bad-lines", line=5, column="timestamp"),
    BadFile("declared-other-format", with_time("2026-03-01", "2026-03-02", "2026-03-03", "2026-03-04"),
            "too-many-bad-lines", "", {"time_format": "day-first"}, line=2, column="timestamp"),
    BadFile("one-user", table(rows=["a,x", "a,y"]).encode(), "too-few-users", "at least 2"),
    BadFile("one-item", table(rows=["a,x", "b,x"]).encode(), "too-few-items"),
    BadFile("all-guests", table(rows=[",x", ",y"]).encode(), "too-few-users", "guest"),
    BadFile("all-below-min-score", with_score("1", "2", "3", "3"), "too-few-users", "min_score", {"min_score": 4}),
    BadFile("all-excluded", PLAIN, "too-few-users", "exclude_items",
            {"exclude_items": sorted({item for _user, item in PAIRS})}),
    BadFile("gzip-bomb", gz(b"user_id,item_id\n" + b"a,b\nc,d\n" * 12_000_000), "suspicious-compression"),
]  # fmt: skip
