"""What the pages lead to is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/**/*.md")), *sorted(ROOT.glob("benchmarks/**/*.md"))]


def links(text: str) -> list[str]:
    """Targets of links and pictures, of headings too, but not those in examples or on other machines."""
    prose = re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)
    return [target for target in re.findall(r"\]\(([^()\s]+)\)", prose) if "://" not in target]


def headings(page: Path) -> set[str]:
    """The anchors of its headings, as GitHub makes them."""
    lines = re.findall(r"(?m)^#+ (.*)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL))
    return {re.sub(r"[^\w\- ]", "", line.lower()).strip().replace(" ", "-") for line in lines}


def broken(page: Path) -> list[str]:
    """Links of the page that lead nowhere."""
    found = []
    for target in links(page.read_text()):
        path, _, heading = target.partition("#")
        place = page.parent / path if path else page
        if not place.exists() or (heading and heading not in headings(place)):
            found.append(target)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(page):
    assert broken(page) == []


def test_a_link_that_leads_nowhere_is_noticed(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# A `b`, c\n[1](page.md) [2](#a-b-c) [3](gone.md) [4](page.md#gone) `[5](code)` [6](https://x.example)\n"
    )
    assert broken(page) == ["gone.md", "page.md#gone"]


def test_the_readme_leads_to_every_guide():
    readme = (ROOT / "README.md").read_text()
    missing = [page.name for page in ROOT.glob("docs/*.md") if f"(docs/{page.name})" not in readme]
    assert missing == []
