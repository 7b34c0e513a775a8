"""Odd but valid files, which all contain the pairs of `made_files.PAIRS`: the options they need, and what is found."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from tests.data_files.made_files import ITEMS, PAIRS, USERS, gz, parquet, table, with_score, with_time, zipped, zstd

PLAIN = table().encode()
_DAYS = [datetime(2026, 3, day, tzinfo=UTC) for day in (1, 2, 3, 14)]


@dataclass(frozen=True)
class ValidFile:
    """A file that is accepted: its content, options, and members that its report's `format` must have."""

    name: str
    content: bytes
    format: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


def _rows(delimiter: str) -> list[str]:
    return [delimiter.join(pair) for pair in PAIRS]


def _extra(header: str, rows: list[str]) -> bytes:
    return table(header, rows).encode()


LATIN = table(rows=_rows(",")).encode("cp1252")
TIMES = {
    "iso-zone": ("2026-03-01T00:00:00Z", "2026-03-02T01:00:00+01:00", "2026-03-03", "2026-03-14"),
    "iso-space": ("2026-03-01 00:00:00", "2026-03-02 00:00", "2026-03-03 00:00:00.5", "2026-03-14"),
    "bigquery": tuple(f"{day:%Y-%m-%d %H:%M:%S} UTC" for day in _DAYS),
    "shopify": tuple(f"{day:%Y-%m-%d %H:%M:%S} +0000" for day in _DAYS),
    "slashes-iso": tuple(f"{day:%Y/%m/%d}" for day in _DAYS),
    "seconds": tuple(str(int(day.timestamp())) for day in _DAYS),
    "milliseconds": tuple(str(int(day.timestamp()) * 1000) for day in _DAYS),
    "microseconds": tuple(str(int(day.timestamp()) * 10**6) for day in _DAYS),
    "nanoseconds": tuple(str(int(day.timestamp()) * 10**9) for day in _DAYS),
    "zero-date": ("0000-00-00 00:00:00", "2026-03-02", "2026-03-03", "2026-03-14"),
    "mysql-null": ("\\N", "NULL", "", "2026-03-14"),
    "month-names": tuple(f'"{day:%b} {day.day}, {day.year} 9:00:00 AM"' for day in _DAYS),
}
OTHER_TIMES = {
    "day-first-dots": ("day-first", tuple(f"{day:%d.%m.%Y}" for day in _DAYS)),
    "day-first-slashes": ("day-first", tuple(f"{day:%d/%m/%Y %H:%M}" for day in _DAYS)),
    "day-first-dashes": ("day-first", tuple(f"{day:%d-%m-%Y}" for day in _DAYS)),
    "day-first-short-year": ("day-first", tuple(f"{day:%d/%m/%y}" for day in _DAYS)),
    "month-first": ("month-first", tuple(f"{day:%m/%d/%Y}" for day in _DAYS)),
    "month-first-pm": ("month-first", tuple(f"{day:%m/%d/%Y} 1:05:00 PM" for day in _DAYS)),
    "excel-days": ("excel", ("46082", "46083", "46084.5", "46095")),
    "yyyymmdd": ("yyyymmdd", tuple(f"{day:%Y%m%d}" for day in _DAYS)),
    "yyyymmddhhmmss": ("yyyymmdd", tuple(f"{day:%Y%m%d%H%M%S}" for day in _DAYS)),
}
VALID_FILES = [
    ValidFile("plain", PLAIN, {"type": "csv", "delimiter": ",", "charset": "utf-8", "compression": "none"}),
    ValidFile("semicolon", table("user_id;item_id").encode(), {"delimiter": ";"}),
    ValidFile("tab", table("user_id\titem_id").encode(), {"delimiter": "\t"}),
    ValidFile("pipe", table("user_id|item_id").encode(), {"delimiter": "|"}),
    ValidFile("sep-line", b"sep=;\n" + table("user_id;item_id").encode(), {"delimiter": ";", "header_line": 2}),
    ValidFile("sep-line-quoted", b'"sep=|"\r\n' + table("user_id|item_id").encode(), {"delimiter": "|"}),
    ValidFile("commas-in-semicolons", _extra("user_id;item_id;a,b,c", [f"{u};{i};x,y" for u, i in PAIRS])),
    ValidFile("crlf", table(end="\r\n").encode()),
    ValidFile("cr", table(end="\r").encode()),
    ValidFile("no-last-line-end", PLAIN.rstrip()),
    ValidFile("blank-lines-above", b"\n\n" + PLAIN, {"header_line": 3}),
    ValidFile("blank-lines-between", PLAIN.replace(b"\n", b"\n\n")),
    ValidFile("comments-above", b"# Orders\n# 2026\n" + PLAIN, {"header_line": 3}),
    ValidFile("bom", b"\xef\xbb\xbf" + PLAIN, {"charset": "utf-8"}),
    ValidFile("utf-16", table().encode("utf-16"), {"charset": "utf-16-le"}),
    ValidFile("utf-16-be", b"\xfe\xff" + table().encode("utf-16-be"), {"charset": "utf-16-be"}),
    ValidFile("utf-16-tab", table("user_id\titem_id").encode("utf-16"), {"delimiter": "\t"}),
    ValidFile("utf-32", table().encode("utf-32"), {"charset": "utf-32-le"}),
    ValidFile("utf-16-declared", table().encode("utf-16-le"), {}, {"charset": "utf-16-le"}),
    ValidFile("windows-1252", LATIN, {"charset": "cp1252"}, {"charset": "windows-1252"}),
    ValidFile("latin-1-name", LATIN, {}, {"charset": "ISO-8859-1"}),
    ValidFile("all-quoted", table('"user_id","item_id"', [f'"{u}","{i}"' for u, i in PAIRS]).encode()),
    ValidFile("comma-in-quotes", _extra("user_id,note,item_id", [f'{u},"a, ""b""",{i}' for u, i in PAIRS])),
    ValidFile("line-break-in-note", _extra("user_id,note,item_id", [f'{u},"a\nb",{i}' for u, i in PAIRS])),
    ValidFile("line-break-in-header", _extra('user_id,"a\nb",item_id', [f"{u},,{i}" for u, i in PAIRS])),
    ValidFile("other-order", _extra("item_id,x,user_id", [f"{i},1,{u}" for u, i in PAIRS])),
    ValidFile("upper-case", table("USER_ID,Item_Id").encode()),
    ValidFile("camel-case", table("userId,itemId").encode()),
    ValidFile("spaces-in-names", table(" User ID , Item ID ").encode()),
    ValidFile("customer-sku", table("customer_id,sku").encode()),
    ValidFile("mapped", table("Kunde;Artikel").encode(), {}, {"user": "Kunde", "item": "Artikel"}),
    ValidFile("mapped-two-fit", _extra("email,customer,sku", [f"x,{u},{i}" for u, i in PAIRS]), {},
              {"user": "customer"}),
    ValidFile("repeated-other-column", _extra("x,user_id,x,item_id", [f"1,{u},2,{i}" for u, i in PAIRS])),
    ValidFile("gzip", gz(PLAIN), {"compression": "gzip"}),
    ValidFile("gzip-members", gz(PLAIN[:20]) + gz(PLAIN[20:]), {"compression": "gzip"}),
    ValidFile("gzip-utf-16", gz(table().encode("utf-16")), {"charset": "utf-16-le"}),
    ValidFile("zstd", zstd(PLAIN), {"compression": "zstd"}),
    ValidFile("zstd-frames", zstd(PLAIN[:20]) + zstd(PLAIN[20:]), {"compression": "zstd"}),
    ValidFile("zip", zipped({"orders.csv": PLAIN}), {"compression": "zip"}),
    ValidFile("zip-with-mac-files", zipped({"orders.csv": PLAIN, "__MACOSX/orders.csv": b"x"}), {"compression": "zip"}),
    ValidFile("parquet", parquet({"user_id": USERS, "item_id": ITEMS}), {"type": "parquet"}),
    ValidFile("parquet-zstd", parquet({"item_id": ITEMS, "user_id": USERS}, compression="zstd"), {"type": "parquet"}),
    ValidFile(
        "parquet-dictionary",
        parquet({"customer": pa.array(USERS).dictionary_encode(), "sku": pa.array(ITEMS, pa.large_string())}),
    ),
    ValidFile("parquet-dates", parquet({"user_id": USERS, "item_id": ITEMS, "date": pa.array(_DAYS)})),
    ValidFile("parquet-gzip", gz(parquet({"user_id": USERS, "item_id": ITEMS})), {"compression": "gzip"}),
    ValidFile("decimal-comma", with_score("1,5", "2,25", "0,5", "3"), {"decimal": ","}),
    ValidFile("decimal-comma-quoted", with_score('"1,5"', '"2,5"', "1", "1", delimiter=","), {"decimal": ","}),
    ValidFile("decimal-declared", with_score("1,5", "2", "1", "1"), {"decimal": ","}, {"decimal": "comma"}),
    ValidFile("blank-scores", with_score("", " ", "1", "+2e0")),
    ValidFile("ambiguous-date", with_time("01/02/2026", "01/03/2026", "02/03/2026", "03/03/2026"),
              {"time_format": "day-first"}, {"time_format": "day-first"}),
    *(ValidFile(f"time-{name}", with_time(*times), {"time_format": "iso"}) for name, times in TIMES.items()),
    *(ValidFile(f"time-{name}", with_time(*times), {"time_format": kind})
      for name, (kind, times) in OTHER_TIMES.items()),
    ValidFile("guests", _extra("user_id,item_id", [*_rows(","), ",NA", ",1e5"])),
    ValidFile("guest-zero", _extra("order_id,customer_id,item_product_id",
              [*(f"1,{u},{i}" for u, i in PAIRS), "2,0,NA"])),
    ValidFile("returns", _extra("user_id,item_id,quantity", [*(f"{u},{i},2" for u, i in PAIRS), "x,y,-1"])),
    ValidFile("min-score", _extra("user_id,item_id,rating", [*(f"{u},{i},5" for u, i in PAIRS), "x,y,2"]), {},
              {"min_score": 4}),
    ValidFile("excluded-items", _extra("user_id,item_id", [*_rows(","), "007,POSTAGE"]), {},
              {"exclude_items": ["POSTAGE"]}),
    ValidFile("events", _extra("user_id,item_id,event_name",
              [*(f"{u},{i},purchase" for u, i in PAIRS), "007,other,view_item", ",,session_start", "x,,visit"]), {},
              {"events": ["add_to_cart", "purchase"]}),
]  # fmt: skip
