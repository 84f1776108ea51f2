import re

from compressor.render import html


def test_html_escapes_every_text_of_the_users(nasty):
    page = html.page(nasty)
    assert "<script" not in page
    assert page.count("&lt;script&gt;") > 8


def test_the_page_loads_nothing_from_anywhere(page):
    assert not re.search(r"https?:|//|@import|<link|<script|<img|<iframe|<object", page)
    assert all(target.startswith(("#", "./")) for target in re.findall(r'(?:src|href)="([^"]*)"', page))
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", page))


def test_every_reference_inside_the_page_has_its_target(page):
    names = set(re.findall(r'\bid="([^"]*)"', page))
    wanted = set(re.findall(r'href="#([^"]*)"', page)) | set(re.findall(r"url\(#([^)]*)\)", page))
    assert wanted
    assert wanted <= names


def test_the_page_is_well_formed(page):
    from html.parser import HTMLParser

    class Balance(HTMLParser):
        void = frozenset({"meta", "br", "path", "use", "rect", "line", "circle"})

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
    assert html.page(report).count("<details>") >= 2
    assert '<td class="bad">MISSED</td>' in html.page(report)
