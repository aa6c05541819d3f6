"""Does the report work where people read it? Every page, opened in a real browser."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from driving import Browser

CONTRAST = Path(__file__).with_name("contrast.js").read_text(encoding="utf-8")
UNFOLD = "document.querySelectorAll('details').forEach(d => { d.open = true })"
WIDE = 0.5
"""Pixels by which a page may be wider than the window: rounding."""


PLANTED = """<!doctype html><html lang="en"><body>
<p style="width: 2000px">wide</p><p class="faint" style="color: #aaa">faint</p>
<p style="background: rgba(0, 0, 0, .8)"><b class="dark" style="color: #000">dark</b></p>
<img src="http://example.invalid/x.png" alt=""><script>console.error("said")</script>
</body></html>"""


def pages(run: Path) -> list[Path]:
    return [run / "report.html", *sorted((run / "report").glob("*.html"))]


def test_what_is_planted_is_found(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "planted.html"
    page.write_text(PLANTED, encoding="utf-8")
    opened = browser.open(page)
    assert any("said" in words for words in opened.said)
    assert any("ERR_NAME_NOT_RESOLVED" in words for words in opened.said)
    assert "http://example.invalid/x.png" in opened.requests
    assert browser.run("document.documentElement.scrollWidth - innerWidth > 500") is True
    found = browser.run(CONTRAST)
    assert isinstance(found, list)
    assert [words.partition(" ")[0] for words in found] == ["P.faint", "B.dark"]


@pytest.mark.parametrize("width", [390, 1280])
def test_pages_open_silently_without_a_network_and_fit(
    browser: Browser, shown: Path, width: int
) -> None:
    for page in pages(shown):
        opened = browser.open(page, width)
        assert not opened.said, (page.name, opened.said)
        assert not opened.dialogs, page.name
        elsewhere = [
            url for url in opened.requests
            if not url.startswith("data:") and url not in (page.as_uri(), "about:blank")
        ]  # fmt: skip
        assert not elsewhere, (page.name, elsewhere)
        browser.run(UNFOLD)
        overflow = browser.run("document.documentElement.scrollWidth - innerWidth")
        assert isinstance(overflow, int | float)
        assert overflow <= WIDE, (page.name, width, overflow)


def test_pages_are_small_and_quick_however_many_rows(browser: Browser, shown: Path) -> None:
    for page in pages(shown):
        assert page.stat().st_size < 5e6, page.name
        assert browser.open(page).seconds < 10, page.name


def test_hostile_texts_make_no_element_and_run_nothing(browser: Browser, shown: Path) -> None:
    for page in pages(shown):
        browser.open(page)
        found = browser.run(
            "[document.scripts.length,"
            " document.querySelectorAll('iframe,object,embed,form').length,"
            " [...document.images].filter(i => !i.src.startsWith('data:')).length,"
            " [...document.querySelectorAll('*')].filter(e => e.getAttributeNames()"
            ".some(n => n.startsWith('on'))).length]"
        )
        assert found == [0, 0, 0, 0], page.name


def test_every_picture_is_drawn_and_has_words(browser: Browser, shown: Path) -> None:
    drawn = 0
    for page in pages(shown):
        browser.open(page)
        bad = browser.run(
            "[...document.images].filter(i => !(i.complete && i.naturalWidth > 50"
            " && i.alt.length > 20)).length"
        )
        assert bad == 0, page.name
        drawn += int(browser.run("document.images.length") or 0)
    assert drawn >= 10


def test_headings_and_landmarks_are_in_order(browser: Browser, shown: Path) -> None:
    for page in pages(shown):
        browser.open(page)
        levels = browser.run(
            "[...document.querySelectorAll('h1,h2,h3,h4')].map(h => +h.tagName[1])"
        )
        assert isinstance(levels, list)
        assert levels[0] == 1, page.name
        assert levels.count(1) == 1, page.name
        assert all(b - a <= 1 for a, b in itertools.pairwise(levels)), page.name
        marks = browser.run(
            "[document.documentElement.lang, ...['header','nav','main','footer'].map("
            "t => document.querySelectorAll('body > ' + t).length), document.title.length > 0,"
            " document.querySelectorAll('nav [aria-current=page]').length]"
        )
        assert marks == ["en", 1, 1, 1, 1, True, 1], page.name
        unnamed = browser.run(
            "[...document.querySelectorAll('a,summary,[tabindex],section,nav')].filter(e =>"
            " !(e.textContent.trim() || e.getAttribute('aria-label'))"
            " || (e.tagName == 'SECTION' && !document.getElementById("
            "e.getAttribute('aria-labelledby')))).length"
        )
        assert unnamed == 0, page.name


def test_the_keyboard_reaches_the_content_and_shows_where_it_is(
    browser: Browser, shown: Path
) -> None:
    browser.open(shown / "report.html")
    browser.press("Tab")
    first = browser.run(
        "(() => { const e = document.activeElement, b = e.getBoundingClientRect();"
        " return [e.className, b.left >= 0 && b.top >= 0 && b.width > 0] })()"
    )
    assert first == ["skip", True]
    browser.press("Enter")
    assert browser.run("location.hash") == "#main"
    stops: list[object] = []
    for _ in range(12):
        browser.press("Tab")
        stops.append(browser.run(
            "(() => { const e = document.activeElement, s = getComputedStyle(e);"
            " return [!!e.closest('main'), s.outlineStyle != 'none' && parseFloat(s.outlineWidth)"
            " >= 2] })()"
        ))  # fmt: skip
    assert stops == [[True, True]] * 12


def test_folded_lists_open_by_keyboard(browser: Browser, shown: Path) -> None:
    browser.open(shown / "report" / "claims.html")
    browser.run("document.querySelector('details > summary').focus()")
    assert browser.run("document.querySelector('details').open") is False
    browser.press("Enter")
    assert browser.run("document.querySelector('details').open") is True


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(browser: Browser, shown: Path, scheme: str) -> None:
    for page in pages(shown):
        browser.open(page, scheme=scheme)
        browser.run(UNFOLD)
        assert browser.run(CONTRAST) == [], (page.name, scheme)


def test_links_lead_to_what_is_there(browser: Browser, shown: Path) -> None:
    for page in pages(shown):
        browser.open(page)
        links = browser.run("[...new Set([...document.links].map(a => a.getAttribute('href')))]")
        assert isinstance(links, list)
        lost = browser.run(
            "[...document.links].map(a => a.getAttribute('href')).filter(h => h[0] == '#'"
            " && !document.getElementById(h.slice(1)))"
        )
        assert lost == [], page.name
        for link in links:
            file, _, anchor = link.partition("#")
            if file:
                target = (page.parent / file).resolve()
                assert target.exists(), (page.name, link)
                assert not anchor or f'id="{anchor}"' in target.read_text("utf-8"), link
