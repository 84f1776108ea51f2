"""ONNX Runtime for another processor, under emulation: whether a file gives the same numbers there, never how fast.

The emulated machine is a folder: `qemu-user`'s one program, a root file system with Python and its libraries out of
Debian packages that are unpacked and not installed, and the wheels for that processor. No part of it needs root.
"""
