"""One picture of a few samples, each beside its label in colours: it shows mistakes that no check finds."""

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from segslim.colours import blend
from segslim.data.images import as_rgb
from segslim.data.source import Pair

SAMPLES = {"train": 4, "val": 2}
COLUMNS = 2  # of samples; each is two tiles wide
TILE = 300  # pixels of a tile's longer side
GAP, LINE, FONT_SIZE = 8, 20, 13
PAPER, INK = (255, 255, 255), (40, 40, 40)
MOST_NAMES = 40  # in the legend: colours of more classes could not be told apart


def contact_sheet(
    pairs: Mapping[str, Sequence[Pair]], colours: Sequence[Sequence[int]], classes: Sequence[str] | None = None
) -> Image.Image:
    """Samples spread evenly over each split: the image, and the image with its classes' `colours` laid over it.

    Ignored pixels keep the image's own colour. `classes` are the names in the legend; without them it has numbers.
    """
    samples = []
    for split, listed in pairs.items():
        chosen = np.linspace(0, len(listed) - 1, min(SAMPLES[split], len(listed))).round().astype(int)
        samples += [(f"{split}: {listed[i].image.name}", *_tiles(listed[i], colours)) for i in chosen]
    rows = [samples[first : first + COLUMNS] for first in range(0, len(samples), COLUMNS)]
    heights = [LINE + max(image.height for _, image, _ in row) + GAP for row in rows]
    width = COLUMNS * 2 * (TILE + GAP) + GAP
    legend = _legend(width - 2 * GAP, colours, classes)
    sheet = Image.new("RGB", (width, GAP + sum(heights) + legend.height + GAP), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(FONT_SIZE)
    top = GAP
    for row, height in zip(rows, heights, strict=True):
        for column, (title, image, labelled) in enumerate(row):
            left = GAP + column * 2 * (TILE + GAP)
            while font.getlength(title) > 2 * TILE:  # file names differ at their ends: keep those
                title = "..." + title[4:]
            draw.text((left, top), title, INK, font)
            sheet.paste(image, (left, top + LINE))
            sheet.paste(labelled, (left + TILE + GAP, top + LINE))
        top += height
    sheet.paste(legend, (GAP, top))
    return sheet


def _tiles(pair: Pair, colours: Sequence[Sequence[int]]) -> tuple[Image.Image, Image.Image]:
    """The image and the labelled image, both of at most `TILE` x `TILE` pixels."""
    image = Image.fromarray(as_rgb(pair.read_image()))
    scale = TILE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    small = image.resize(size, Image.Resampling.BOX if scale < 1 else Image.Resampling.NEAREST)
    if pair.label is None:
        return small, small
    label = pair.read_label()
    # Nearest neighbour by indices: class ids have no mean, and may exceed the 8 bits of a PIL image.
    rows, columns = (np.arange(new) * old // new for new, old in zip(size[::-1], label.shape, strict=True))
    return small, Image.fromarray(blend(np.asarray(small), label[np.ix_(rows, columns)], colours))


def _legend(width: int, colours: Sequence[Sequence[int]], classes: Sequence[str] | None) -> Image.Image:
    """Swatches with names, in as many lines as they need."""
    font = ImageFont.load_default(FONT_SIZE)
    names = [classes[index] if classes else str(index) for index in range(len(colours))][:MOST_NAMES]
    if len(colours) > MOST_NAMES:
        names.append(f"and {len(colours) - MOST_NAMES} more")
    places, left, top = [], 0, 0
    for name in names:
        entry_width = LINE + int(font.getlength(name)) + 2 * GAP
        if left + entry_width > width and left:
            left, top = 0, top + LINE
        places.append((left, top))
        left += entry_width
    legend = Image.new("RGB", (width, top + LINE), PAPER)
    draw = ImageDraw.Draw(legend)
    for index, (name, (left, top)) in enumerate(zip(names, places, strict=True)):
        if index < MOST_NAMES:
            draw.rectangle((left, top + 3, left + FONT_SIZE, top + 3 + FONT_SIZE), tuple(colours[index]), INK)
        draw.text((left + LINE, top + 2), name, INK, font)
    return legend
