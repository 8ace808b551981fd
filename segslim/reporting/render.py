"""From a template and plain values to one HTML file that needs nothing beside it."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, values: Mapping[str, Any]) -> str:
    """The page. Every value is escaped: names and error texts are the user's, and may be anything."""
    import jinja2  # a tenth of a second that --help does not have

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    return environment.get_template(template).render(style=style, **values)


def write_whole(text: str, file: Path) -> None:
    """Writes a file at once: who reads it meanwhile finds the old one or the new one, never a part."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}-{os.getpid()}")
    part.write_text(text, encoding="utf-8")
    part.replace(file)
