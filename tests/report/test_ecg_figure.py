"""An ECG's picture: to scale, in the clinicians' layout, with nothing passed over in silence."""

import re

import numpy as np
import pytest

from ecg_jax.data.leads import LEADS
from ecg_jax.errors import UserError
from ecg_jax.report.ecg_figure import ecg_figure


def trace(figure: str, lead: str, place: int = 0) -> np.ndarray:
    """Points [N, 2] in mm of a lead's longest path, from its relative coordinates."""
    part = re.findall(rf'data-lead="{lead}">(.*?)</svg>', figure, re.S)[place]
    data = max(re.findall(r' d="([^"]*)"', part), key=len)
    numbers = re.findall(r"-?\d*\.?\d+", data)
    steps = np.array(numbers, float).reshape(-1, 2)
    return np.cumsum(steps, axis=0)


def view(figure: str, lead: str, place: int = 0) -> dict[str, float]:
    """Where a lead's row lies on the paper."""
    tags = re.findall(rf'<svg ([^>]*data-lead="{lead}")', figure)
    pairs = dict(re.findall(r'([\w-]+)="([^"]*)"', tags[place]))
    return {"x": float(pairs["x"]), "width": float(pairs["width"]), "box": pairs["viewBox"]}


def test_ecg_is_drawn_to_scale():
    T, rate = 5000, 500
    ecg = np.zeros((T, 12), np.int16)
    ecg[500, LEADS.index("I")] = 1000  # 1 mV at 1 s
    ecg[750:900, LEADS.index("II")] = -500
    ecg[3500, LEADS.index("V1")] = 1500  # 7 s: 2 s into the third column
    figure = ecg_figure(ecg, rate, np.ones(12, bool), "test")
    one = trace(figure, "I")
    peak = one[one[:, 1].argmin()]
    assert peak == pytest.approx([25, -10], abs=0.051)
    assert one[0] == pytest.approx([0, 0]) and one[-1] == pytest.approx([62.5, 0])
    v1 = trace(figure, "V1")
    assert v1[v1[:, 1].argmin()] == pytest.approx([50, -15], abs=0.051)
    assert view(figure, "V1")["x"] - view(figure, "I")["x"] == 125
    rhythm = trace(figure, "II", place=1)
    assert rhythm[-1, 0] == pytest.approx(250, abs=0.11)
    low = rhythm[rhythm[:, 1] > 4]
    assert len(low) >= 2
    assert low[:, 0] == pytest.approx([37.5, 44.9, 44.9][: len(low)], abs=0.11)
    assert low[:, 1] == pytest.approx(5)
    # the picture's unit is the millimetre
    size = re.search(r'viewBox="0 0 (\d+) (\d+)"[^>]*width="(\d+)mm" height="(\d+)mm"', figure)
    assert size[1] == size[3] and size[2] == size[4]
    for part in re.findall(r"<svg [^>]*data-lead[^>]*>", figure):
        pairs = dict(re.findall(r'([\w-]+)="([^"]*)"', part))
        assert pairs["viewBox"].split()[2:] == [f"{float(pairs['width']):g}", pairs["height"]]


def test_every_sample_of_a_record_is_within_a_twentieth_of_a_millimetre():
    rng = np.random.default_rng(1)
    ecg = np.cumsum(rng.integers(-60, 61, (1000, 12)), axis=0).astype(np.int16)
    figure = ecg_figure(ecg, 100, np.ones(12, bool), "test")
    drawn = trace(figure, "II", place=1)
    millivolts = (ecg[:, 1] - np.median(ecg[:, 1])) / 1000
    at = np.interp(np.arange(1000) * 0.25, drawn[:, 0], -drawn[:, 1] / 10)
    steepest = np.abs(np.diff(millivolts)).max() / 0.25  # mV per mm; x is rounded to 0.05 mm too
    assert np.abs(at - millivolts).max() < 0.0051 + 0.051 * steepest


def test_calibration_pulse_and_layout():
    figure = ecg_figure(np.zeros((1000, 12), np.int16), 100, np.ones(12, bool), "test")
    assert figure.count("h3v-10h5v10h3") == 4  # 1 mV, 0.2 s
    order = " ".join(re.findall(r'data-lead="(\w+)"', figure))
    assert order == "I aVR V1 V4 II aVL V2 V5 III aVF V3 V6 II"
    assert "25 mm/s   10 mm/mV   100 Hz" in figure


def test_missing_leads_are_marked_and_high_traces_cut():
    ecg = np.zeros((1000, 12), np.int16)
    ecg[40, 0] = 9000
    mask = np.ones(12, bool)
    mask[[1, 7]] = False
    figure = ecg_figure(ecg, 100, mask, "test")
    assert figure.count("II: not recorded") == 2 and figure.count("V2: not recorded") == 1
    assert figure.count("cut at the row") == 1 and "I (cut at the row" in figure
    assert all(
        'overflow="hidden"' in tag for tag in re.findall(r"<svg [^>]*data-lead[^>]*>", figure)
    )


def test_a_short_record_is_not_stretched():
    figure = ecg_figure(np.zeros((300, 12), np.int16), 100, np.ones(12, bool), "test")
    assert trace(figure, "II", place=1)[-1, 0] == pytest.approx(74.75, abs=0.06)
    assert 'data-lead="V4"><path d="M0-3v6"' in figure  # nothing of it was recorded


@pytest.mark.parametrize(
    ("ecg", "rate", "mask"),
    [
        (np.zeros((100, 8)), 100, np.ones(12)),
        (np.zeros((0, 12)), 100, np.ones(12)),
        (np.zeros((100, 12)), 0, np.ones(12)),
        (np.zeros((100, 12)), 100, np.ones(8)),
    ],
)
def test_arrays_that_are_no_ecg_are_an_error(ecg, rate, mask):
    with pytest.raises(UserError, match=r"ECG to draw|lead_mask"):
        ecg_figure(ecg, rate, mask, "test")
