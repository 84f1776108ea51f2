"""Whose recordings the sample uses, for what, and where the features are kept."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

sys.path.append(str(Path(__file__).parents[1]))

from packages import fetched

if TYPE_CHECKING:
    from numpy.typing import NDArray

CACHE = Path(__file__).parent / "cache"
WEIGHTS = "pretrained.pt"
FEATURES = "windows.npz"

PACKAGES = {
    "asterisk-core-sounds-en-wav": "1.6.1-1",
    "asterisk-core-sounds-es-wav": "1.6.1-1",
    "asterisk-core-sounds-fr-wav": "1.6.1-1",
    "asterisk-core-sounds-it-wav": "1.6.1-1",
    "asterisk-core-sounds-ru-wav": "1.6.1-1",
    "asterisk-prompt-it-menardi-wav": "1:1.4.22+mm20110907-3.1",
    "asterisk-prompt-es-co": "0.20070403-2.1",
    "asterisk-prompt-fr-armelle": "20070613-2.2",
    "klettres-data": "4:22.12.3-1",
}
"""Debian package -> version (those of Debian 12)."""


@dataclass(frozen=True)
class Voice:
    """A folder of recordings in a Debian package."""

    name: str
    package: str
    speaker: str
    """The person; by the packages' copyright files, one woman speaks both the English and the Spanish prompts."""
    role: Literal["scored", "validation", "heard"]
    """`scored`: evaluated, never anything else. `validation`: watched while retraining. `heard`: learnt from."""
    folder: str = "usr/share/asterisk/sounds"


_ALPHABETS = (
    *("ar", "cs", "da", "de", "en", "en_GB", "es", "fr", "he", "hu"),
    *("it", "lt", "ml", "nb", "nds", "nl", "pt_BR", "ru", "tn", "uk"),
)
"""KLettres: volunteers of 20 languages and dialects say letters and syllables."""

SCORED = (
    Voice("en", "asterisk-core-sounds-en-wav", "Allison Smith", "scored"),
    Voice("es", "asterisk-core-sounds-es-wav", "Allison Smith", "scored"),
    Voice("fr", "asterisk-core-sounds-fr-wav", "June Wallack", "scored"),
    Voice("it", "asterisk-core-sounds-it-wav", "Carlo", "scored"),
)
VALIDATION = (
    Voice("ru", "asterisk-core-sounds-ru-wav", "ivrvoice.ru", "validation"),
    Voice("it-menardi", "asterisk-prompt-it-menardi-wav", "Menardi", "validation"),
)
HEARD = (
    Voice("es-co", "asterisk-prompt-es-co", "July Jiménez", "heard"),
    Voice("fr-armelle", "asterisk-prompt-fr-armelle", "Armelle Desjardins", "heard"),
    *(
        Voice(f"klettres-{code}", "klettres-data", f"KLettres {code}", "heard", f"usr/share/klettres/{code}")
        for code in _ALPHABETS
    ),
)
VOICES = (*SCORED, *VALIDATION, *HEARD)


def cached(name: str) -> Path:
    """A file that `fetch.py` makes; raises `TaskError` if it has not run."""
    return fetched(CACHE / name, "speaker_encoder", "the speaker encoder's data", "175 MB from Debian and PyPI")


def load_features() -> dict[str, NDArray[np.float32]]:
    """Windows (W, 160, 40) of each voice, by its name."""
    with np.load(cached(FEATURES), allow_pickle=False) as file:
        return dict(file)
