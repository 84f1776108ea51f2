"""Fetches the speaker encoder's weights and real speech by package name, and turns the speech into features, once.

Weights: `pip download Resemblyzer` (Apache-2.0); only the checkpoint is taken out of the wheel, no code of it runs.
Speech: `apt-get download` of the packages in `voices.py` (CC-BY-SA and the like), unpacked by `dpkg-deb -x`; nothing
is installed. All of it lands in the git-ignored folder `cache/` beside this file.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import wave
import zipfile
from typing import TYPE_CHECKING
from urllib.parse import quote

import numpy as np
from mel import Samples, features
from voices import CACHE, FEATURES, HEARD, SCORED, VOICES, WEIGHTS, Voice

from compressor.errors import CompressorError, OutputError, UsageError
from compressor.files import write_whole

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

PACKAGE, VERSION, MEMBER = "Resemblyzer", "0.1.4", "resemblyzer/pretrained.pt"
SPEEDS = (1.0, 0.85, 1.15)
"""Heard recordings are played at these speeds too: each a new voice, nearly, since pitch and formants move."""
HELD_OUT_EVERY = 5
"""Of a heard voice's recordings, every fifth is kept for validation."""


def main() -> int:
    """Fetch what is missing; 0 when all is there, 2 with a message where it cannot be had."""
    try:
        CACHE.mkdir(exist_ok=True)
        fetch_weights(CACHE)
        folders = {voice.name: fetch_voice(voice, CACHE / "packages") for voice in VOICES}
        write_features(folders, CACHE / FEATURES)
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
    print(f"fetching {PACKAGE} {VERSION} with pip")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    run([*pip, "--dest", str(cache), f"{PACKAGE}=={VERSION}"])
    wheel = next(cache.glob(f"{PACKAGE}-{VERSION}-*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        write_whole(target, archive.read(MEMBER))
    wheel.unlink()


def fetch_voice(voice: Voice, packages: Path) -> Path:
    """Download and unpack a voice's package; gives the folder with its recordings."""
    folder = packages / voice.package
    if folder.is_dir():
        return folder
    packages.mkdir(exist_ok=True)
    print(f"fetching {voice.package} {voice.version} with apt-get")
    run(["apt-get", "download", "--quiet", f"{voice.package}={voice.version}"], cwd=packages)
    archive = packages / f"{voice.package}_{quote(voice.version, safe='+').lower()}_all.deb"
    unpacked = packages / f"{voice.package}.part"
    run(["dpkg-deb", "-x", str(archive), str(unpacked)])
    unpacked.rename(folder)
    archive.unlink()
    return folder


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


def write_features(folders: dict[str, Path], target: Path) -> None:
    """Extract the features of all voices into one file."""
    if target.is_file():
        return
    arrays: dict[str, NDArray[np.float32]] = {}
    for voice in SCORED:
        print(f"extracting the features of {voice.name}")
        arrays[voice.name] = first_windows(recordings(folders[voice.name]))
    for voice in HEARD:
        print(f"extracting the features of {voice.name} at {len(SPEEDS)} speeds")
        files = recordings(folders[voice.name])
        arrays[f"{voice.name}/held out"] = first_windows(files[::HELD_OUT_EVERY])
        learnt = [file for index, file in enumerate(files) if index % HELD_OUT_EVERY]
        arrays[f"{voice.name}/train"] = np.concatenate([all_windows(learnt, speed) for speed in SPEEDS])
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **arrays)
    write_whole(target, content.getvalue())


def recordings(folder: Path) -> list[Path]:
    """The WAV files below a folder, in a fixed order, without those of silence."""
    return sorted(path for path in folder.rglob("*.wav") if path.parent.name != "silence")


def first_windows(files: list[Path]) -> NDArray[np.float32]:
    """One window (160, 40) of each recording that has one: (W, 160, 40)."""
    return np.concatenate([features(*read(file))[:1] for file in files])


def all_windows(files: list[Path], speed: float) -> NDArray[np.float32]:
    """Every window of the recordings played at `speed`: (W, 160, 40)."""
    heard = (read(file) for file in files)
    return np.concatenate([features(samples, round(rate_hz * speed)) for samples, rate_hz in heard])


def read(file: Path) -> tuple[Samples, int]:
    """Samples (N,) in -1..1 and the rate in Hz of a 16-bit mono WAV file."""
    with wave.open(str(file)) as sound:
        if sound.getnchannels() != 1 or sound.getsampwidth() != 2:
            raise UsageError(f"{file} is not 16-bit mono", hint="delete the cache folder and fetch again")
        return np.frombuffer(sound.readframes(sound.getnframes()), dtype="<i2") / 32768.0, sound.getframerate()


if __name__ == "__main__":
    sys.exit(main())
