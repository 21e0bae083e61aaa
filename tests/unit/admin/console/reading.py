"""What a browser would build of a page: elements, labels, headings, and attributes that run something."""

import re
from html.parser import HTMLParser

ID = "01JD3M8Z7Q0000000001"
PAGES = (
    "/",
    "/?range=30d&live=off",
    "/queue",
    f"/queue/{ID}",
    "/suspend",
    "/trace",
    "/trace?to=contoso.com",
    f"/trace/{ID}",
    "/connectors",
    "/connectors/contoso-out",
    "/change",
    "/certificates",
    "/certificates/sheet?name=relay.example.com",
    "/report",
    "/audit",
)


class Reader(HTMLParser):
    """What a browser would build: elements, and attributes that run something."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.scripts: list[dict[str, str | None]] = []
        self.dangerous: list[tuple[str, str]] = []
        self.headings: list[int] = []
        self.inputs: list[dict[str, str | None]] = []
        self.labels: set[str | None] = set()
        self.ids: list[str] = []
        self.open: list[str] = []
        self.captions = self.tables = self.th_bare = 0
        self.charts: list[bool] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.ids += [given["id"] or ""] if "id" in given else []
        if tag == "script":
            self.scripts.append(given)
        self.dangerous += [(tag, name) for name in given if name.startswith("on") or name == "style"]
        if tag in ("iframe", "object", "embed", "base", "style"):
            self.dangerous.append((tag, ""))
        if re.fullmatch(r"h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag in ("input", "select", "textarea") and given.get("type") != "hidden":
            self.inputs.append({**given, "inside": "label" if "label" in self.open else None})
        if tag == "label":
            self.labels.add(given.get("for"))
        self.tables += tag == "table"
        self.captions += tag == "caption"
        self.th_bare += tag == "th" and "scope" not in given
        if tag == "svg":
            self.charts.append(
                given.get("aria-hidden") == "true" or (given.get("role") == "img" and "aria-labelledby" in given)
            )
        if tag not in ("input", "meta", "link", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop() != tag:
            pass


def read(text: str) -> Reader:
    found = Reader()
    found.feed(text)
    return found
