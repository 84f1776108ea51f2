"""One phone, by way of `adb`."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from compressor.errors import ExportError, UsageError
from compressor.runtimes import child

if TYPE_CHECKING:
    from pathlib import Path

HOME = "/data/local/tmp"
"""The folder of the phone in which everyone may write and run programs."""
_SECONDS = 600.0
_QUICK = 60.0
_LAST_LINES = 8
_ADVICE = {
    "unauthorized": "unlock the phone and allow USB debugging for this computer, then try again",
    "offline": "plug it in again, or run `adb kill-server`, then try again",
    "no permissions": "let udev give you the device (package android-sdk-platform-tools-common), then plug it in again",
}
_EXITS = {
    126: "is the runner built for the phone's processor, and can it be executed?",
    127: "is the runner built for the phone's processor, and are its libraries there? --push FILE copies one beside it",
}


@dataclass(frozen=True)
class Phone:
    """One phone, by way of `adb`."""

    serial: str

    @classmethod
    def connect(cls, serial: str | None) -> Phone:
        """The phone of a serial number, or the only one.

        Raises:
            UsageError: There is no `adb`, no device, no such device, several of them, or it is not ready.
        """
        if shutil.which("adb") is None:
            raise UsageError(
                "there is no `adb` on the PATH", hint="install Android's platform tools (Debian: apt-get install adb)"
            )
        listed = child.run(["adb", "devices"], seconds=_QUICK, what="`adb devices`").splitlines()
        pairs = [line.split(maxsplit=1) for line in listed[1:] if line.strip() and not line.startswith("*")]
        states = {pair[0]: pair[1].strip() if len(pair) == 2 else "unknown" for pair in pairs}
        shown = ", ".join(f"{name} ({state})" for name, state in states.items())
        if not states:
            raise UsageError(
                "no phone is connected",
                hint="plug one in and turn USB debugging on in its developer options; `adb devices` lists it then",
            )
        if serial is None and len(states) > 1:
            raise UsageError(f"{len(states)} phones are connected: {shown}", hint="name one: --adb SERIAL")
        chosen = next(iter(states)) if serial is None else serial
        if chosen not in states:
            raise UsageError(f"no phone `{chosen}` is connected", hint=f"`adb devices` lists {shown}")
        if states[chosen] != "device":
            advice = next((text for word, text in _ADVICE.items() if states[chosen].startswith(word)), None)
            raise UsageError(
                f"phone {chosen} is not ready: {states[chosen]}",
                hint=advice or "it has to be listed as `device` by `adb devices`",
            )
        return cls(chosen)

    def push(self, source: Path, target: str) -> None:
        """Copy a file, or a folder as `target`, which is not there yet."""
        self._adb("push", str(source), target, what="pushing files to the phone", hint=f"is there space in {HOME}?")

    def pull(self, source: str, target: Path) -> None:
        """Copy a file from the phone."""
        self._adb("pull", source, str(target), what="pulling the results from the phone")

    def shell(self, command: str, *, what: str) -> str:
        """What a command prints; raises `ExportError` with its last lines if it fails there."""
        # Old phones do not hand the exit status on, so it is printed.
        said = self._adb("shell", f"({command}) 2>&1; code=$?; echo; echo exit status $code", what=what)
        text, _, code = said.rstrip().rpartition("exit status ")
        if not code.isdigit():
            raise ExportError(f"{what} ended before its time{last_lines(said)}", hint="is the phone still connected?")
        if code != "0":
            raise ExportError(
                f"{what} failed (exit status {code}){last_lines(text)}",
                hint=_EXITS.get(int(code), "its last lines tell why; a code above 128 is that of a crash"),
            )
        return text

    def facts(self) -> dict[str, str]:
        """Model, Android version and processor, as far as the phone tells."""
        names = {"model": "ro.product.model", "android": "ro.build.version.release", "abi": "ro.product.cpu.abi"}
        listed = "; ".join(f"getprop {key} 2>/dev/null || echo" for key in names.values())
        lines = [line.strip() for line in self.shell(listed, what="asking the phone for its model").splitlines()]
        return {"serial": self.serial} | dict(zip(names, [*lines, "", "", ""], strict=False))

    def _adb(self, *arguments: str, what: str, hint: str = "") -> str:
        return child.run(["adb", "-s", self.serial, *arguments], seconds=_SECONDS, what=what, hint=hint)


def last_lines(said: str) -> str:
    """The end of what a program printed, for an error message; empty if it printed nothing."""
    lines = [line.rstrip() for line in said.splitlines() if line.strip()]
    return "; its last lines:\n" + "\n".join(f"  {line}" for line in lines[-_LAST_LINES:]) if lines else ""
