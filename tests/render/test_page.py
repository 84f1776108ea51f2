"""The page in a browser: nothing is cut on a phone, it loads nothing, and its one script copies a command."""

import pytest

from compressor.render import html
from compressor.report import side_by_side
from compressor.runtimes.workers import chromium as headless

NEEDED = pytest.mark.skipif(headless.find() is None, reason="there is no Chromium")
PHONE, DESK = 390, 1400
WIDEST = "Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)"
CUT = """[...document.querySelectorAll("main *")].filter(one => {
  const box = one.getBoundingClientRect();
  return box.width && (box.right > innerWidth + 1 || box.left < -1) && !one.closest(".scroll");
}).map(one => one.outerHTML.slice(0, 90))"""
OPEN = "document.querySelectorAll('details').forEach(one => { one.open = true; })"
FOREIGN = """(() => {
  const script = document.createElement("script");
  script.textContent = "window.ran = true";
  document.body.append(script);
  return window.ran ? "ran" : "did not run";
})()"""
CONTRAST = """(() => {
  const channel = value => (value /= 255) <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const numbers = color => color.match(/[0-9.]+/g).slice(0, 3).map(Number);
  const paper = light(numbers(getComputedStyle(document.body).backgroundColor));
  return [...document.querySelectorAll("p, li, td, th, a, small, em, figcaption, h2, svg text")].map(one => {
    const style = getComputedStyle(one), ink = light(numbers(one.closest("svg") ? style.fill : style.color));
    return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
  }).reduce((least, one) => Math.min(least, one), 21);
})()"""


@pytest.fixture(scope="module")
def chromium():
    with headless.Browser(headless.find()) as opened:
        yield opened


@pytest.fixture(scope="module")
def pages(tmp_path_factory, report):
    """A report, one whose every text is long, and several runs, as files."""
    folder = tmp_path_factory.mktemp("pages")
    wide = report.model_copy(
        update={
            "compressed": report.compressed * 3,
            "speedups": report.speedups * 3,
            "name": "a_recipe_with_a_name_that_has_no_space_in_it_at_all_and_goes_on_for_long",
            "notes": ("/a/very/long/path" * 20,),
        }
    )
    texts = {
        "report": html.page(report),
        "wide": html.page(wide),
        "runs": html.page(side_by_side([("runs/a", report), ("runs/b", wide)])),
    }
    paths = {name: folder / f"{name}.html" for name in texts}
    for name, path in paths.items():
        path.write_text(texts[name], encoding="utf-8")
    return paths


@NEEDED
@pytest.mark.parametrize("name", ["report", "wide", "runs"])
@pytest.mark.parametrize("width", [PHONE, DESK])
def test_nothing_is_cut_at_any_width_folded_or_not(chromium, pages, name, width):
    chromium.open(pages[name], width=width, height=844)
    assert chromium.evaluate(WIDEST) <= width
    chromium.evaluate(OPEN)
    assert chromium.evaluate(WIDEST) <= width
    assert chromium.evaluate(CUT) == []


@NEEDED
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_stands_out_from_the_page(chromium, pages, scheme):
    chromium.open(pages["report"], width=PHONE, height=844, scheme=scheme)
    assert chromium.evaluate(CONTRAST) >= 4.5  # of WCAG 2.2, level AA


@NEEDED
def test_text_in_plots_is_large_enough_on_a_phone(chromium, pages):
    chromium.open(pages["report"], width=PHONE, height=844)
    every = "[...document.querySelectorAll('svg text')]"
    heights = chromium.evaluate(f"{every}.map(one => one.getBoundingClientRect().height)")
    assert min(heights) >= 11


@NEEDED
def test_the_button_copies_and_the_policy_lets_only_its_script_run(chromium, pages):
    chromium.open(pages["report"], width=DESK, height=844)
    button = "document.querySelector('button.copy')"
    assert chromium.evaluate(f"{button}.hidden") is False
    chromium.evaluate(f"{button}.click()")
    command = chromium.evaluate(f"{button}.previousElementSibling.textContent")
    assert command.startswith("compressor run")
    assert chromium.evaluate("getSelection().toString()").strip() == command
    assert chromium.evaluate(FOREIGN) == "did not run"


@NEEDED
def test_the_page_works_without_scripts(chromium, pages):
    chromium.open(pages["report"], width=PHONE, height=844, scripts=False)
    assert chromium.evaluate("document.querySelector('button.copy').hidden") is True
    assert "gru-half" in chromium.evaluate("document.querySelector('h1').innerText")


@NEEDED
def test_a_link_to_a_folded_section_unfolds_it(chromium, pages):
    chromium.open(pages["report"], width=DESK, height=844)
    chromium.evaluate("document.querySelector('nav a[href=\"#environment\"]').click()")
    assert chromium.evaluate("document.getElementById('environment').closest('details').open") is True


FOLDED = "[...document.querySelectorAll('details.secondary')].map(one => one.open)"


@NEEDED
def test_a_phone_shows_what_was_decided_and_folds_the_rest(chromium, pages):
    chromium.open(pages["report"], width=PHONE, height=844)
    assert set(chromium.evaluate(FOLDED)) == {False}
    assert chromium.evaluate("document.documentElement.scrollHeight") < 5 * 844
    for anchor in ("result", "limits"):
        assert chromium.evaluate(f"document.getElementById('{anchor}').getBoundingClientRect().height") > 0
    chromium.evaluate("document.querySelector('nav a[href=\"#original-and-compressed\"]').click()")
    assert chromium.evaluate("document.getElementById('original-and-compressed').closest('details').open") is True
    assert chromium.evaluate("document.getElementById('original-and-compressed').getBoundingClientRect().height") > 0


@NEEDED
@pytest.mark.parametrize(("width", "scripts"), [(DESK, True), (PHONE, False)])
def test_nothing_but_what_is_looked_up_is_folded_on_a_desk_or_without_scripts(chromium, pages, width, scripts):
    chromium.open(pages["report"], width=width, height=844, scripts=scripts)
    assert set(chromium.evaluate(FOLDED)) == {True}
