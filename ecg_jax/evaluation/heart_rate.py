"""The heart rate of a recording, for a control: what a probe learns from one number that a bedside
monitor shows."""

import numpy as np

BAND = (5.0, 20.0)  # Hz, where the QRS complex is
REFRACTORY = 0.24  # s, between two beats: 250 a minute
WIDTH = 0.12  # s, of a QRS complex
_ROWS = 256  # records at a time


def heart_rate(ecg: np.ndarray, length: np.ndarray, rate: int) -> np.ndarray:
    """Beats per minute [N], from the median interval of R peaks; NaN where there are fewer than
    two.

    Peaks of the energy in the QRS band, summed over leads and over the width of a complex, that
    are at least a third as high as the highest ones (after Pan and Tompkins 1985, without their
    search back).

    Args:
      ecg: int16 [N, T, 12].
      length: int [N], samples that are the record's own.
      rate: in Hz.
    """
    from scipy.signal import butter, find_peaks, sosfiltfilt

    sos = butter(2, BAND, "bandpass", fs=rate, output="sos")
    found = np.full(len(ecg), np.nan, np.float32)
    for start in range(0, len(ecg), _ROWS):
        part = np.asarray(ecg[start : start + _ROWS], np.float32)
        energy = (sosfiltfilt(sos, part, axis=1) ** 2).sum(axis=2)
        window = np.ones(round(WIDTH * rate)) / round(WIDTH * rate)
        for i, (row, n) in enumerate(zip(energy, length[start : start + _ROWS], strict=True)):
            if n < 2 * len(window):
                continue
            smooth = np.sqrt(np.convolve(row[:n], window, "same"))
            height = np.sort(smooth)[-max(1, n // 50) :].mean() / 3
            peaks, _ = find_peaks(smooth, height=height or 1.0, distance=round(REFRACTORY * rate))
            if len(peaks) > 1:
                found[start + i] = 60 * rate / np.median(np.diff(peaks))
    return found
