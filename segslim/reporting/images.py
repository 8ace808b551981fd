"""Pictures inside a page: as data URIs, no larger than they are shown."""

import base64
import io
from pathlib import Path

TYPES = {".png": "image/png", ".jpg": "image/jpeg"}


def embedded(file: Path) -> str:
    """The file as it is. Raises OSError when it cannot be read."""
    return _uri(file.read_bytes(), TYPES[file.suffix])


def downsized(file: Path, width: int) -> str:
    """The picture at most `width` pixels wide, as JPEG. Raises OSError when it cannot be read."""
    from PIL import Image

    with Image.open(file) as opened:
        image = opened.convert("RGB")
    if image.width > width:
        image = image.resize((width, round(image.height * width / image.width)), Image.Resampling.BOX)
    content = io.BytesIO()
    image.save(content, "JPEG", quality=80)
    return _uri(content.getvalue(), "image/jpeg")


def _uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
