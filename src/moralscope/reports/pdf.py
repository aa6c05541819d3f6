"""How does a picture become the same PDF every time? Its objects in one order.

The converter writes the objects of a document, and the entries of some of its dictionaries, in
the order of a hash table, which differs from call to call. A reader sees no difference; a
comparison of bytes does. Objects are found by the document's own cross-reference table, visited
from the catalogue on, entries by name, and written anew in that order with numbers of their own.
"""

from __future__ import annotations

import re

import vl_convert

_ENTRIES = re.compile(rb"(?:^ +/\w+ \d+ 0 R\n){2,}", re.MULTILINE)
_REFERENCE = re.compile(rb"(?<![\d.])(\d+) 0 R\b")
_IN_USE = re.compile(rb"(\d{10}) \d{5} n")


def pdf_of(svg: str) -> bytes:
    """One page of the picture's size, its fonts inside; the same picture gives the same bytes."""
    return in_order(vl_convert.svg_to_pdf(svg))


def in_order(document: bytes) -> bytes:
    """The same document, its objects and the entries of its dictionaries in one order.

    Args:
        document: a PDF with a plain cross-reference table, as the converter writes it.
    """
    start = int(document.rsplit(b"startxref\n", 1)[1].split(b"\n", 1)[0])
    table = document[start:]
    objects = _objects(document, start, table)
    trailer = table.split(b"trailer\n", 1)[1].split(b"startxref", 1)[0]
    order = _visited(trailer, objects)
    numbers = {old: new for new, old in enumerate(order, 1)}
    written = document[: min(int(offset) for offset in _IN_USE.findall(table))]
    offsets: list[int] = []
    for old in order:
        head, stream = objects[old]
        offsets.append(len(written))
        written += b"%d 0 obj\n" % numbers[old] + _renumbered(head, numbers) + stream
    lines = [b"%010d 00000 n\r\n" % offset for offset in offsets]
    count = b"%d" % (len(order) + 1)
    trailer = re.sub(rb"/Size \d+", b"/Size " + count, _renumbered(trailer, numbers))
    return (
        written
        + b"xref\n0 %s\n0000000000 65535 f\r\n" % count
        + b"".join(lines)
        + b"trailer\n%sstartxref\n%d\n%%%%EOF" % (trailer, len(written))
    )


def _objects(document: bytes, start: int, table: bytes) -> dict[int, tuple[bytes, bytes]]:
    """Number to what an object says and what it carries: its stream, where it has one."""
    offsets = sorted(int(offset) for offset in _IN_USE.findall(table))
    found: dict[int, tuple[bytes, bytes]] = {}
    for begin, end in zip(offsets, [*offsets[1:], start], strict=True):
        number, body = document[begin:end].split(b" 0 obj\n", 1)
        head, word, stream = body.partition(b"\nstream\n")
        found[int(number)] = (_ENTRIES.sub(_by_name, head), word + stream)
    return found


def _by_name(entries: re.Match[bytes]) -> bytes:
    return b"".join(sorted(entries[0].splitlines(keepends=True)))


def _visited(trailer: bytes, objects: dict[int, tuple[bytes, bytes]]) -> list[int]:
    """Numbers of objects in the order in which they are first referred to."""
    order: dict[int, None] = {}
    waiting = [int(number) for number in _REFERENCE.findall(trailer)][::-1]
    while waiting:
        number = waiting.pop()
        if number not in order:
            order[number] = None
            waiting += [int(n) for n in _REFERENCE.findall(objects[number][0])][::-1]
    return list(order)


def _renumbered(text: bytes, numbers: dict[int, int]) -> bytes:
    return _REFERENCE.sub(lambda found: b"%d 0 R" % numbers[int(found[1])], text)
