"""Read a report as a browser and a person would, with the standard library alone."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "img", "br", "hr", "link", "input", "base"}


@dataclass
class Element:
    """An element with its attributes and children (elements and texts)."""

    tag: str
    attributes: dict[str, str | None]
    children: list[Element | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All text in it."""
        return "".join(c if isinstance(c, str) else c.text for c in self.children)

    @property
    def words(self) -> str:
        """All text in it, white space collapsed."""
        return " ".join(self.text.split())

    def all(self, tag: str | None = None, **attributes: str) -> list[Element]:
        """Descendants of a tag that have these attributes; ``class_`` matches one class."""
        found: list[Element] = []
        for child in self.children:
            if isinstance(child, str):
                continue
            if (tag is None or child.tag == tag) and all(
                child.has(k, v) for k, v in attributes.items()
            ):
                found.append(child)
            found.extend(child.all(tag, **attributes))
        return found

    def has(self, key: str, value: str) -> bool:
        """Whether an attribute has a value; ``class_`` holds one class among others."""
        if key == "class_":
            return value in (self.attributes.get("class") or "").split()
        return self.attributes.get(key) == value

    def one(self, tag: str | None = None, **attributes: str) -> Element:
        """The only such descendant."""
        found = self.all(tag, **attributes)
        assert len(found) == 1, (tag, attributes, len(found))
        return found[0]


class _Reader(HTMLParser):
    """Builds the tree and refuses tags that do not nest."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("#root", {})
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, dict(attrs))
        assert len(element.attributes) == len(attrs), f"repeated attribute in {tag}: {attrs}"
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open[-1].children.append(Element(tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def read_html(text: str) -> Element:
    """The tree of a page in which every tag is closed in order."""
    reader = _Reader()
    reader.feed(text)
    reader.close()
    assert [element.tag for element in reader.open] == ["#root"]
    return reader.root


def read_pages(run: Path) -> dict[str, Element]:
    """The tree of every page of a run's report, by its path inside the run."""
    paths = [run / "report.html", *sorted((run / "report").glob("*.html"))]
    return {
        path.relative_to(run).as_posix(): read_html(path.read_text(encoding="utf-8"))
        for path in paths
    }


def joined(pages: dict[str, Element]) -> Element:
    """All pages as one: the first, with the sections of the others at the end of its main part.

    Links lead from the run folder, and to anchors as on a page of its own, whichever page they
    are on.
    """
    first = pages["report.html"]
    main = first.one("main")
    for path, page in pages.items():
        for link in page.all("a"):
            link.attributes["href"] = _from_run(path, link.attributes["href"] or "")
        if page is not first:
            main.children.extend(page.one("main").children)
    return first


def _from_run(path: str, link: str) -> str:
    file, _, anchor = link.partition("#")
    if anchor:
        return f"#{anchor}"
    folder = path.rpartition("/")[0]
    parts = [*folder.split("/")] if folder else []
    for part in file.split("/"):
        if part == "..":
            parts.pop()
        else:
            parts.append(part)
    return "/".join(parts)


def read_page(run: Path) -> Element:
    """The whole report of a run as one tree."""
    return joined(read_pages(run))


def read_report(pages: dict[str, str]) -> Element:
    """Rendered pages, by path, as one tree."""
    return joined({path: read_html(text) for path, text in pages.items()})


def spec_rows(run: Path, figure: str, *columns: str) -> list[dict[str, object]]:
    """Rows of the data in a figure's specification that have all these columns."""
    spec = json.loads((run / "figures" / f"{figure}.json").read_text())
    sets: dict[str, list[dict[str, object]]] = spec["datasets"]
    return [row for rows in sets.values() for row in rows if set(columns) <= row.keys()]
