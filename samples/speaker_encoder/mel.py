"""The encoder's input: mel power spectrograms of 16 kHz speech, cut into windows. Only numpy, nothing else.

Formulas: Slaney, "Auditory Toolbox", Interval Research 1998-010 (mel scale and area-normalised triangles).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float64]

RATE_HZ = 16_000
TELEPHONE_HZ = 8_000
BANDS = 40
FFT_SAMPLES = 400
"""25 ms."""
HOP_SAMPLES = 160
"""10 ms."""
WINDOW_FRAMES = 160
"""1.6 s."""
LOUDNESS_DBFS = -30.0
PAUSE_DB = 30.0
"""A frame this far below a recording's loudest frame is taken for a pause."""

_LINEAR_HZ = 200.0 / 3.0
"""Width of a mel below 1 kHz, where the scale is linear."""
_BREAK_HZ = 1000.0
_LOG_STEP = np.log(6.4) / 27.0
"""Growth of log(Hz) for a mel above 1 kHz."""


def hz_to_mel(hz: Samples) -> Samples:
    """Slaney's mel scale: hz / (200/3) below 1 kHz, 15 + 27 ln(hz / 1000) / ln 6.4 above."""
    hz = np.asarray(hz, dtype=np.float64)
    above = _BREAK_HZ / _LINEAR_HZ + np.log(np.maximum(hz, _BREAK_HZ) / _BREAK_HZ) / _LOG_STEP
    return np.where(hz < _BREAK_HZ, hz / _LINEAR_HZ, above)


def mel_to_hz(mel: Samples) -> Samples:
    """The inverse of `hz_to_mel`."""
    mel = np.asarray(mel, dtype=np.float64)
    break_mel = _BREAK_HZ / _LINEAR_HZ
    above = _BREAK_HZ * np.exp(_LOG_STEP * (np.maximum(mel, break_mel) - break_mel))
    return np.where(mel < break_mel, mel * _LINEAR_HZ, above)


def filterbank(bands: int = BANDS, fft_samples: int = FFT_SAMPLES, rate_hz: int = RATE_HZ) -> Samples:
    """Triangles (bands, fft_samples // 2 + 1) with corners evenly spaced in mel from 0 to rate / 2.

    A triangle has area 1 when frequency is in Hz: its height is 2 / (upper - lower).
    """
    corners = mel_to_hz(np.linspace(0.0, hz_to_mel(np.array(rate_hz / 2)), bands + 2))  # (bands + 2,)
    bins_hz = np.arange(fft_samples // 2 + 1) * rate_hz / fft_samples  # (bins,)
    lower, centre, upper = corners[:-2, None], corners[1:-1, None], corners[2:, None]  # (bands, 1) each
    rising = (bins_hz - lower) / (centre - lower)  # (bands, bins)
    falling = (upper - bins_hz) / (upper - centre)  # (bands, bins)
    return np.maximum(0.0, np.minimum(rising, falling)) * 2.0 / (upper - lower)


def resample(samples: Samples, rate_hz: int, target_hz: int = RATE_HZ) -> Samples:
    """The same sound (N,) at `target_hz`: its spectrum is cut or filled with zeros (ideal band limiting).

    A `rate_hz` that is not the true one plays the sound faster (higher) or slower (lower): another voice, nearly.
    """
    if rate_hz == target_hz or len(samples) == 0:
        return np.asarray(samples, dtype=np.float64)
    length = round(len(samples) * target_hz / rate_hz)
    spectrum = np.fft.rfft(samples)[: length // 2 + 1]
    return np.fft.irfft(spectrum, n=length) * (length / len(samples))


def set_loudness(samples: Samples, dbfs: float = LOUDNESS_DBFS) -> Samples:
    """Scale sound (N,) to `dbfs` of root mean square, full scale being 1; silence stays silence."""
    rms = np.sqrt(np.mean(np.square(samples))) if len(samples) else 0.0
    return samples if rms == 0.0 else samples * (10.0 ** (dbfs / 20.0) / rms)


def mel_power(samples: Samples) -> NDArray[np.float32]:
    """Mel power spectrogram (frames, BANDS), no logarithm, of 16 kHz samples (N,) in -1..1.

    Frame t is centred on sample t * HOP_SAMPLES (zeros beyond the ends), so there are N // HOP_SAMPLES + 1 frames;
    the analysis window is the periodic Hann window.
    """
    padded = np.pad(np.asarray(samples, dtype=np.float64), FFT_SAMPLES // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, FFT_SAMPLES)[::HOP_SAMPLES]  # (frames, FFT_SAMPLES)
    hann = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(FFT_SAMPLES) / FFT_SAMPLES)
    power = np.abs(np.fft.rfft(frames * hann, axis=1)) ** 2  # (frames, bins)
    return (power @ filterbank().T).astype(np.float32)


def drop_pauses(frames: NDArray[np.float32], below_db: float = PAUSE_DB) -> NDArray[np.float32]:
    """The frames of (frames, bands) whose energy is at most `below_db` under the loudest frame's."""
    energy = frames.sum(axis=1)
    return frames[energy >= energy.max(initial=0.0) * 10.0 ** (-below_db / 10.0)]


def windows(frames: NDArray[np.float32]) -> NDArray[np.float32]:
    """Windows (W, WINDOW_FRAMES, bands), one after the other, of (frames, bands); a shorter rest is dropped."""
    count = len(frames) // WINDOW_FRAMES
    return frames[: count * WINDOW_FRAMES].reshape(count, WINDOW_FRAMES, frames.shape[1])


def spectrogram(samples: Samples, rate_hz: int) -> NDArray[np.float32]:
    """The encoder's input (frames, BANDS) for a recording (N,): 16 kHz, one loudness, without pauses."""
    return drop_pauses(mel_power(set_loudness(resample(samples, rate_hz))))
