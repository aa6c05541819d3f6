"""Is a PDF the same document every time, and still the picture?"""

from __future__ import annotations

import re
import zlib

import vl_convert

from moralscope.reports.pdf import in_order, pdf_of

SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="240" height="120">'
    "<defs>"
    + "".join(
        f'<linearGradient id="gradient_{i}"><stop offset="0" stop-color="red"/>'
        f'<stop offset="1" stop-color="blue"/></linearGradient>'
        for i in range(6)
    )
    + "</defs>"
    + "".join(
        f'<g opacity="0.{i + 2}"><rect x="{30 * i}" y="4" width="20" height="20" '
        f'fill="url(#gradient_{i})"/></g>'
        for i in range(6)
    )
    + '<text x="9" y="60" font-family="sans-serif">plain words</text>'
    '<text x="9" y="90" font-family="sans-serif" font-weight="bold">bold words</text></svg>'
)


def objects(document: bytes) -> dict[int, bytes]:
    """Objects where the cross-reference table says that they begin."""
    start = int(document.rsplit(b"startxref\n", 1)[1].split(b"\n", 1)[0])
    assert document[start : start + 5] == b"xref\n"
    offsets = [int(x) for x in re.findall(rb"(\d{10}) 00000 n\r\n", document[start:])]
    ends = dict(zip(sorted(offsets), [*sorted(offsets)[1:], start], strict=True))
    found = {number: document[at : ends[at]] for number, at in enumerate(offsets, 1)}
    for number, body in found.items():
        assert body.startswith(b"%d 0 obj\n" % number)
        assert body.rstrip().endswith(b"endobj")
    return found


def streams(document: bytes) -> list[bytes]:
    found = (body.partition(b"\nstream\n") for body in objects(document).values())
    return sorted(tail.rsplit(b"\nendstream", 1)[0] for _, word, tail in found if word)


def test_equal_pictures_give_equal_bytes_where_the_converter_does_not() -> None:
    raw = [vl_convert.svg_to_pdf(SVG) for _ in range(12)]
    assert len(set(raw)) > 1
    assert len({in_order(document) for document in raw}) == 1
    assert in_order(raw[0]) == pdf_of(SVG)


def test_nothing_that_is_drawn_is_changed_or_lost() -> None:
    raw = vl_convert.svg_to_pdf(SVG)
    found = in_order(raw)
    assert streams(found) == streams(raw)
    assert len(objects(found)) == len(objects(raw))
    assert found[:9] == raw[:9]
    assert b"/MediaBox [0 0 240 120]" in found or b"/MediaBox [0 0 180 90]" in found
    drawn = [zlib.decompress(s) for s in streams(found) if s[:1] == b"x"]
    assert any(b" Tj" in s or b" TJ" in s for s in drawn)


def test_every_reference_leads_to_what_it_led_to() -> None:
    raw = vl_convert.svg_to_pdf(SVG)

    def unfolded(document: bytes) -> str:
        """The document as one text, each object in the place of its first reference."""
        found, seen = objects(document), set[int]()

        def body(number: int) -> str:
            if number in seen:
                return "again"
            seen.add(number)
            text = found[number].split(b"\n", 1)[1].partition(b"\nstream\n")
            lines = text[0].decode("latin-1").splitlines()
            runs = sorted(lines) if b"/XObject" in text[0] or b"/Page" in text[0] else lines
            inner = re.sub(r"(\d+) 0 R", lambda m: f"<{body(int(m[1]))}>", "\n".join(runs))
            return inner + str(zlib.crc32(text[2].rsplit(b"\nendstream", 1)[0]))

        trailer = document.rsplit(b"trailer\n", 1)[1].split(b"startxref", 1)[0].decode()
        return re.sub(r"(\d+) 0 R", lambda m: f"<{body(int(m[1]))}>", trailer)

    assert unfolded(in_order(raw)) == unfolded(raw)


def test_objects_in_order_stay_as_they_are() -> None:
    once = pdf_of(SVG)
    assert in_order(once) == once
