import base64
import hashlib
import json
import re

from compressor.render import html
from compressor.report import Report


def test_html_escapes_every_text_of_the_users(nasty):
    page = html.page(nasty)
    assert page.count("<script") == 1  # the page's own
    assert page.count("&lt;script&gt;") > 8


def test_the_page_loads_nothing_from_anywhere(page):
    assert not re.search(r"https?:|//|@import|<link|<script .*src|<img|<iframe|<object", page)
    assert all(target.startswith(("#", "./")) for target in re.findall(r'(?:src|href)="([^"]*)"', page))
    assert "url(" not in page


def test_every_reference_inside_the_page_has_its_target(page):
    names = set(re.findall(r'\bid="([^"]*)"', page))
    wanted = set(re.findall(r'href="#([^"]*)"', page))
    assert wanted
    assert wanted <= names


def test_the_page_is_well_formed(page):
    from html.parser import HTMLParser

    class Balance(HTMLParser):
        void = frozenset({"meta", "br"})

        def __init__(self):
            super().__init__()
            self.open = []

        def handle_starttag(self, tag, attrs):
            if tag not in self.void:
                self.open.append(tag)

        def handle_startendtag(self, tag, attrs):
            pass

        def handle_endtag(self, tag):
            if tag not in self.void:
                assert self.open.pop() == tag

    parser = Balance()
    parser.feed(page)
    assert parser.open == []


def test_files_of_the_run_are_links_unless_their_name_leads_elsewhere(report):
    files = ("model.onnx", "a b#?.bin", "../secret", "/etc/passwd", "javascript:alert(1)", "x//y")
    shown = html.page(report.model_copy(update={"files": files}))
    assert re.findall(r'href="(\./[^"]*)"', shown) == [
        "./model.onnx",
        "./a%20b%23%3F.bin",
        "./javascript%3Aalert%281%29",
    ]
    assert all(name in shown for name in files)


def test_folded_blocks_can_be_opened_and_losses_stand_out(report):
    assert html.page(report).count("<details") >= 8
    assert '<td class="bad">MISSED</td>' in html.page(report)


def test_the_badge_and_what_to_try_next_come_before_any_table(page):
    badge, tries = page.index('class="badge bad"'), page.index('id="what-to-try-next"')
    assert badge < tries < page.index("<table")
    assert "1 of 3 limits missed" in page[badge : badge + 80]


def test_commands_can_be_copied_and_other_code_has_no_button(page):
    assert page.count('<button class="copy"') == page.count('class="code command"') >= 1
    assert "compressor run gru-half --task vowels/task.py --out &#39;runs/gru half&#39;" in page


def test_the_policy_of_the_page_names_its_script_by_hash(page):
    script = re.search(r"<script>(.*?)</script>", page, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in page


def test_words_between_backticks_are_code_and_stay_escaped(report):
    shown = html.page(report.model_copy(update={"notes": ("see `steps.0.ratio` and `<b>`",)}))
    assert "see <code>steps.0.ratio</code> and <code>&lt;b&gt;</code>" in shown


def test_a_report_of_an_older_version_still_opens(report):
    older = json.loads(report.to_json())
    del older["command"]
    for file in (older["original"], *older["compressed"]):
        del file["costs"]
    read = Report.from_json(json.dumps(older))
    assert (read.command, read.original.costs) == ((), ())
    shown = html.page(read)
    assert "The model by layer" not in shown
    assert "Command" not in re.findall(r"<h2>(.*?)</h2>", shown)
