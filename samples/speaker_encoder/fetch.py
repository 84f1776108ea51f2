"""Fetches the speaker encoder's weights and real speech by package name, and turns the speech into features, once.

Weights: `pip download Resemblyzer` (Apache-2.0); only the checkpoint is taken out of the wheel, no code of it runs.
Speech: `apt-get download` of the packages in `voices.py` (free licences), unpacked by `dpkg-deb -x`; nothing is
installed. All of it lands in the git-ignored folder `cache/` beside this file.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from mel import TELEPHONE_HZ, Samples, resample, spectrogram, windows
from voices import CACHE, FEATURES, PACKAGES, VOICES, WEIGHTS

from compressor.errors import UsageError
from compressor.files import write_whole

sys.path.append(str(Path(__file__).parents[1]))

from packages import from_debian, from_wheel, report

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

SPEEDS = (1.0, 0.85, 1.15)
"""Heard recordings are played at these speeds: each a new voice, nearly, since pitch and formants move."""
HEARD_WINDOWS = 120
"""At most this many windows of a heard voice at one speed, so that no voice drowns the others."""
SHORTEST_SAMPLES = 800
"""0.1 s at the telephone's rate; anything shorter is left out."""


def fetch() -> None:
    """Write what is missing."""
    from_wheel("Resemblyzer", "0.1.4", {"resemblyzer/pretrained.pt": CACHE / WEIGHTS})
    packages = {name: CACHE / "packages" / name for name in PACKAGES}
    for name, version in PACKAGES.items():
        from_debian(name, version, packages[name])
    write_features(packages, CACHE / FEATURES)


def write_features(packages: Mapping[str, Path], target: Path) -> None:
    """Extract the features of all voices into one file."""
    if target.is_file():
        return
    arrays: dict[str, NDArray[np.float32]] = {}
    for voice in VOICES:
        print(f"extracting the features of {voice.name} ({voice.role})", flush=True)
        files = recordings(packages[voice.package] / voice.folder)
        arrays[voice.name] = heard_windows(files) if voice.role == "heard" else first_windows(files)
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **arrays)
    write_whole(target, content.getvalue())


def recordings(folder: Path) -> list[Path]:
    """The sound files below a folder, in a fixed order, without links and without those of silence."""
    files = (path for path in folder.rglob("*") if path.suffix in {".wav", ".gsm", ".ogg"} and not path.is_symlink())
    return sorted(path for path in files if path.parent.name != "silence")


def first_windows(files: list[Path]) -> NDArray[np.float32]:
    """One window of each recording that has 1.6 s of speech: (W, 160, 40)."""
    return np.concatenate([windows(spectrogram(telephone, TELEPHONE_HZ))[:1] for telephone in map(read, files)])


def heard_windows(files: list[Path]) -> NDArray[np.float32]:
    """Windows (W, 160, 40) of the recordings strung together, since most are shorter than one, at every speed."""
    sounds = [sound for sound in map(read, files) if len(sound) >= SHORTEST_SAMPLES and sound.any()]
    every = []
    for speed in SPEEDS:
        frames = np.concatenate([spectrogram(sound, round(TELEPHONE_HZ * speed)) for sound in sounds])
        cut = windows(frames)
        every.append(cut[np.linspace(0, len(cut) - 1, min(len(cut), HEARD_WINDOWS)).astype(int)])
    return np.concatenate(every)


def read(file: Path) -> Samples:
    """Samples (N,) in -1..1 at the telephone's rate, at which the scored recordings are: mono, the channels' mean."""
    try:
        import soundfile
    except ImportError as error:
        raise UsageError("`soundfile` is not installed", hint="pip install -e '.[samples]'") from error
    raw = {"format": "RAW", "subtype": "GSM610", "samplerate": TELEPHONE_HZ, "channels": 1}
    try:
        samples, rate_hz = soundfile.read(file, always_2d=True, **(raw if file.suffix == ".gsm" else {}))
    except soundfile.LibsndfileError as error:
        raise UsageError(f"{file} cannot be read: {error}", hint="delete the cache folder and fetch again") from error
    return resample(samples.mean(axis=1), rate_hz, TELEPHONE_HZ)


if __name__ == "__main__":
    sys.exit(report(fetch, CACHE))
