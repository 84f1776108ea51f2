"""Whose recordings the sample uses, for what, and where the features are kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from compressor.errors import TaskError

if TYPE_CHECKING:
    from numpy.typing import NDArray

CACHE = Path(__file__).parent / "cache"
WEIGHTS = "pretrained.pt"
FEATURES = "windows.npz"


@dataclass(frozen=True)
class Voice:
    """One folder of recordings in a Debian package."""

    name: str
    package: str
    version: str
    speaker: str
    """The person; by the package's copyright file, one woman speaks both the English and the Spanish prompts."""
    role: Literal["scored", "heard"]
    """`scored`: only ever evaluated. `heard`: only ever learnt from."""


VOICES = (
    Voice("en", "asterisk-core-sounds-en-wav", "1.6.1-1", "Allison Smith", "scored"),
    Voice("es", "asterisk-core-sounds-es-wav", "1.6.1-1", "Allison Smith", "scored"),
    Voice("fr", "asterisk-core-sounds-fr-wav", "1.6.1-1", "June Wallack", "scored"),
    Voice("it", "asterisk-core-sounds-it-wav", "1.6.1-1", "Carlo", "scored"),
    Voice("ru", "asterisk-core-sounds-ru-wav", "1.6.1-1", "ivrvoice.ru", "heard"),
    Voice("it-menardi", "asterisk-prompt-it-menardi-wav", "1:1.4.22+mm20110907-3.1", "Menardi", "heard"),
)
SCORED = tuple(voice for voice in VOICES if voice.role == "scored")
HEARD = tuple(voice for voice in VOICES if voice.role == "heard")


def cached(name: str) -> Path:
    """A file that `fetch.py` makes; raises `TaskError` where it has not run."""
    path = CACHE / name
    if not path.is_file():
        raise TaskError(
            f"the speaker encoder's data is not here: {path} is missing",
            hint="fetch it with `python samples/speaker_encoder/fetch.py` (about 115 MB from Debian and PyPI)",
        )
    return path


def load_features() -> dict[str, NDArray[np.float32]]:
    """Windows (W, 160, 40) by entry: a scored voice's name, or `<name>/train` and `<name>/held out` of a heard one."""
    with np.load(cached(FEATURES), allow_pickle=False) as file:
        return dict(file)
