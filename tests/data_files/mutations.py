"""Strategies for damaged files: bytes of the tables' files, changed in several places, with any options."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from functools import partial

from hypothesis import strategies as st

from recsys.file_options import DECIMALS, DELIMITERS, TIME_FORMATS
from tests.data_files.bad_files import BAD_FILES
from tests.data_files.made_files import gz, zipped, zstd
from tests.data_files.valid_files import VALID_FILES

MAX_SEED_BYTES = 20_000
MAX_BYTES = 4_000_000
SEEDS = [file.content for file in (*VALID_FILES, *BAD_FILES) if len(file.content) <= MAX_SEED_BYTES]
TOKENS = [
    *(b'"', b'""', b",", b";", b"\t", b"|", b"\n", b"\r", b"\r\n", b"\x00", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\\N"),
    *(
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"\xfe\xff",
        b"\xef\xb7\x90",
        b"\xe2\x80\xa8",
        b"\xc2\x85",
        b"\xc2\xa0",
        b"'",
        b"=",
    ),
    *(b"sep=;\n", b"#", b"user_id", b"item_id", b"timestamp", b"quantity", b"NaN", b"inf", b"-0", b"1e309", b"1,5"),
    *(b"9223372036854775808", b"0000-00-00", b"9999-12-31", b"2026-02-30", b"13/13/2026", b"2026-03-01T25:00:00Z"),
    *(b"253402300800", b"99999999", b"x" * 600, b"\x1f\x8b\x08", b"PK\x03\x04", b"PAR1", b"\x28\xb5\x2f\xfd"),
]
PACKERS: list[Callable[[bytes], bytes]] = [
    gz,
    zstd,
    *(
        partial(lambda content, method: zipped({"orders.csv": content}, method=method), method=method)
        for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    ),
]

OPTIONS = st.just({}) | st.fixed_dictionaries(
    {},
    optional={
        "user": st.sampled_from(["user_id", "item_id", "Kunde", ""]),
        "item": st.sampled_from(["item_id", "x"]),
        "time": st.sampled_from(["-", "timestamp"]),
        "score": st.sampled_from(["-", "interaction_score"]),
        "delimiter": st.sampled_from(list(DELIMITERS)),
        "charset": st.sampled_from(["utf-8", "utf-16-le", "utf-16", "utf-32", "windows-1252", "big5", "shift_jis"]),
        "decimal": st.sampled_from(list(DECIMALS)),
        "time_format": st.sampled_from(TIME_FORMATS),
        "min_score": st.sampled_from([-1.0, 0.0, 4.0]),
        "mode": st.sampled_from(["replace", "append"]),
    },
)


@st.composite
def damaged_files(draw: st.DrawFn) -> bytes:
    """Draw a file of the tables with up to six changes, sometimes repeated, compressed, and changed again."""
    content = bytearray(draw(st.sampled_from(SEEDS)))
    _change(draw, content)
    if draw(st.integers(0, 9)) == 0:
        content *= draw(st.sampled_from([10, 1_000, 50_000]))
        del content[MAX_BYTES:]
    if draw(st.integers(0, 4)) == 0:
        content = bytearray(draw(st.sampled_from(PACKERS))(bytes(content)))
        if draw(st.booleans()):
            _change(draw, content)
    return bytes(content)


def _change(draw: st.DrawFn, content: bytearray) -> None:
    """Change bytes at up to six positions."""
    for _ in range(draw(st.integers(0, 6))):
        start = draw(st.integers(0, len(content)))
        end = min(len(content), start + draw(st.sampled_from([0, 1, 2, 7, 40, 1_000])))
        content[start:end] = draw(
            st.sampled_from(TOKENS)
            | st.binary(max_size=20)
            | st.just(b"")
            | st.just(bytes(content[start:end]) * 50)
            | st.sampled_from(SEEDS).map(lambda other, start=start: other[start:])
        )
        if draw(st.integers(0, 9)) == 0:
            del content[start:]
