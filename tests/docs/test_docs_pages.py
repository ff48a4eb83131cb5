"""README and docs are true of the repository: length, links, tree, names, generated pages, words."""

import re

import pytest
from doc_blocks import PAGES, ROOT, name, script

README = (ROOT / "README.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
QUAINT = "told|whoever|whatever|nobody|condemned|doomed|verdict|house|room|rooms|knock|knocked"
GENERATED = re.compile(r"<!-- (tree|imports|plugin example) -->.*?<!-- /\1 -->", re.DOTALL)


def test_the_readme_has_at_most_150_lines():
    assert len(README.splitlines()) <= 150


def test_every_relative_link_of_the_readme_leads_to_a_file_and_its_heading():
    make_reference = script("make_reference.py")
    links = re.findall(r"\]\((?!https?:)([^)#]+)(?:#([^)]+))?\)", README)
    assert links
    for path, anchor in links:
        assert (ROOT / path).exists(), path
        if anchor:
            headings = re.findall(r"^#+ (.+)$", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in map(make_reference.slug, headings), f"{path}#{anchor}"


def test_the_tree_is_what_make_tree_would_write():
    assert script("make_tree.py").written_anew(ARCHITECTURE) == ARCHITECTURE, "run `make tree`"


def test_every_source_file_has_its_line_in_the_tree():
    names = {path.name for package in ("ubt", "sweeps", "analysis") for path in (ROOT / package).rglob("*.py")}
    assert [file for file in names - {"__init__.py"} if f" {file} " not in ARCHITECTURE] == []


def test_the_reference_is_what_make_docs_would_write():
    for path, text in script("make_reference.py").pages().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: run `make docs`"


def test_every_field_of_a_study_is_described_in_the_reference():
    fields = re.findall(r"^\| `(\w+)` \|.*\| (.*) \|$", (ROOT / "docs/reference/study.md").read_text(), re.MULTILINE)
    assert len(fields) > 100
    assert [field for field, text in fields if not text.strip()] == []


def test_every_built_in_study_is_named_in_the_readme():
    studies = [path.stem for path in (ROOT / "sweeps").rglob("studies/*.yaml")]
    assert studies
    assert [study for study in studies if f"`{study}`" not in README] == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_page_uses_plain_words_and_names_no_place_of_the_authors(page):
    text = GENERATED.sub("", page.read_text(encoding="utf-8"))
    assert re.findall(rf"\b({QUAINT})\b", text, re.IGNORECASE) == []
    assert re.findall(r"/work/|/tmp/|pypi\.org|simple/", text) == []


def test_the_lock_file_names_no_address():
    assert "://" not in (ROOT / "requirements.lock").read_text(encoding="utf-8")
