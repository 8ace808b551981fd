"""Reads a page as a browser does, and says what it would not."""

import re
from html.parser import HTMLParser

VOID = {"meta", "img", "br", "line", "circle", "path", "wbr", "hr"}


class Reader(HTMLParser):
    """Collects the text, the tags and the addresses; raises AssertionError where tags do not close in their order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.addresses: list[str] = []
        self.handlers: list[str] = []
        self._texts: list[str] = []
        self.feed(page)
        self.close()
        assert not self.open, self.open

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self._texts))

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "action", "data", "xlink:href")]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open and self.open.pop() == tag, f"</{tag}>"

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script", "title"):
            self._texts.append(data)


def external(page: str) -> list[str]:
    """What a page would have to fetch from elsewhere."""
    found = [address for address in Reader(page).addresses if not address.startswith("data:")]
    found = [address for address in found if not re.fullmatch(r"[\w./%-]+/report\.html(#predictions)?", address)]
    return found + re.findall(r"@import|url\(|https?://", page)
