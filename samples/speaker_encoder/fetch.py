"""Fetches the speaker encoder's weights and real speech by package name, and turns the speech into features, once.

Weights: `pip download Resemblyzer` (Apache-2.0); only the checkpoint is taken out of the wheel, no code of it runs.
Speech: `apt-get download` of the packages in `voices.py` (free licences), unpacked by `dpkg-deb -x`; nothing is
installed. All of it lands in the git-ignored folder `cache/` beside this file.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING
from urllib.parse import quote

import numpy as np
from mel import TELEPHONE_HZ, Samples, resample, spectrogram, windows
from voices import CACHE, FEATURES, PACKAGES, VOICES, WEIGHTS

from compressor.errors import CompressorError, OutputError, UsageError
from compressor.files import write_whole

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

PACKAGE, VERSION, MEMBER = "Resemblyzer", "0.1.4", "resemblyzer/pretrained.pt"
SPEEDS = (1.0, 0.85, 1.15)
"""Heard recordings are played at these speeds: each a new voice, nearly, since pitch and formants move."""
HEARD_WINDOWS = 120
"""At most this many windows of a heard voice at one speed, so that no voice drowns the others."""
SHORTEST_SAMPLES = 800
"""0.1 s at the telephone's rate; anything shorter is left out."""


def main() -> int:
    """Fetch what is missing; 0 when all is there, 2 with a message where it cannot be had."""
    try:
        CACHE.mkdir(exist_ok=True)
        fetch_weights(CACHE)
        packages = {name: fetch_package(name, version, CACHE / "packages") for name, version in PACKAGES.items()}
        write_features(packages, CACHE / FEATURES)
    except OSError as error:
        print(OutputError(f"{CACHE} cannot be written: {error}", hint="free some space").render(), file=sys.stderr)
        return 2
    except CompressorError as error:
        print(error.render(), file=sys.stderr)
        return 2
    print(f"ready: {CACHE}")
    return 0


def fetch_weights(cache: Path) -> None:
    """Take the checkpoint out of the wheel."""
    target = cache / WEIGHTS
    if target.is_file():
        return
    print(f"fetching {PACKAGE} {VERSION} with pip", flush=True)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    run([*pip, "--dest", str(cache), f"{PACKAGE}=={VERSION}"])
    wheel = next(cache.glob(f"{PACKAGE}-{VERSION}-*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        write_whole(target, archive.read(MEMBER))
    wheel.unlink()


def fetch_package(name: str, version: str, packages: Path) -> Path:
    """Download and unpack a Debian package; gives the folder that stands for its root."""
    root = packages / name
    if root.is_dir():
        return root
    packages.mkdir(exist_ok=True)
    print(f"fetching {name} {version} with apt-get", flush=True)
    run(["apt-get", "download", "--quiet", f"{name}={version}"], cwd=packages)
    archive = packages / f"{name}_{quote(version, safe='+').lower()}_all.deb"
    unpacked = packages / f"{name}.part"
    run(["dpkg-deb", "-x", str(archive), str(unpacked)])
    unpacked.rename(root)
    archive.unlink()
    return root


def run(command: list[str], cwd: Path | None = None) -> None:
    """Run a package client; raises `UsageError` where it is missing or fails."""
    if shutil.which(command[0]) is None:
        raise UsageError(
            f"`{command[0]}` is not on this machine",
            hint="the recordings come from Debian's packages: use a machine or container with Debian's `apt-get` and "
            "`dpkg-deb`, and copy samples/speaker_encoder/cache over",
        )
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise UsageError(
            f"`{' '.join(command)}` failed: {reason}",
            hint="check the network, refresh the package lists (`apt-get update`), and see which versions there are",
        )


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
    sys.exit(main())
