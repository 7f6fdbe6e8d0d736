import dataclasses

import numpy as np
import pytest

from ecg_jax.data.leads import LEADS
from ecg_jax.data.records import Records
from ecg_jax.errors import UserError
from ecg_jax.evaluation import robustness

RATE, N, T = 100, 6, 1000
LENGTH = np.array([1000, 1000, 1000, 700, 1000, 0])


def sample():
    """Sums of sines with an offset; record 1 lacks aVR and V4-V6, record 3 is short, 5 is empty."""
    rng = np.random.default_rng(0)
    t = np.arange(T)[:, None] / RATE
    ecg = np.zeros((N, T, 12), np.int16)
    for n in range(N):
        waves = [rng.uniform(50, 800) * np.sin(2 * np.pi * f * t) for f in (1, 3, 7)]
        ecg[n] = sum(waves) * rng.uniform(0.5, 1.5, 12) + 40
    mask = np.ones((N, 12), bool)
    mask[1, [3, 9, 10, 11]] = False
    ecg[~np.broadcast_to(mask[:, None], ecg.shape)] = 0
    for n, length in enumerate(LENGTH):
        ecg[n, length:] = 0
    return ecg, mask


def records():
    ecg, mask = sample()
    names = np.array([f"r{n}" for n in range(N)])
    return Records(
        dataset="ptb_xl",
        split="test",
        rate=RATE,
        ecg=ecg,
        length=LENGTH,
        signal_sha256=np.zeros((N, 32), np.uint8),
        lead_mask=mask,
        record_id=names,
        patient_id=names,
        report=[""] * N,
        person=np.full((N, 2), np.nan, np.float32),
        labels={"super": np.ones((N, 1), bool)},
        classes={"super": ["NORM"]},
    )


def noisy(ecg, mask, names="abcdef", **options):
    options = dict(snr=10, rate=RATE) | options
    return robustness.add_noise(ecg, mask, LENGTH, list(names), **options)


def test_subsets_are_those_of_the_challenge():
    assert {n: len(names) for n, names in robustness.SUBSETS.items()} == {
        n: n for n in (12, 8, 6, 4, 3, 2, 1)
    }
    for names in robustness.SUBSETS.values():
        assert set(names) <= set(LEADS)


@pytest.mark.parametrize("n", robustness.SUBSETS)
def test_leads_are_kept_by_name(n):
    ecg, mask = sample()
    before = ecg.copy()
    names = robustness.SUBSETS[n]
    fewer, kept = robustness.keep_leads(ecg, mask, names)
    assert (fewer.dtype, kept.dtype, fewer.shape) == (np.int16, bool, ecg.shape)
    for i, lead in enumerate(LEADS):
        np.testing.assert_array_equal(kept[:, i], mask[:, i] & (lead in names))
        expected = ecg[..., i] if lead in names else 0
        np.testing.assert_array_equal(fewer[..., i], np.broadcast_to(expected, (N, T)))
    np.testing.assert_array_equal(ecg, before)


def test_a_record_without_any_lead_left_is_refused():
    ecg, mask = sample()
    mask[2, 0] = False
    with pytest.raises(UserError, match=r"1 of 6 records have none of the leads I$"):
        robustness.keep_leads(ecg, mask, ("I",))
    with pytest.raises(UserError, match="unknown leads X, avr"):
        robustness.keep_leads(ecg, mask, ("I", "X", "avr"))


@pytest.mark.parametrize("kind", robustness.BANDS)
@pytest.mark.parametrize("snr", [20, 0, -10])
def test_noise_has_the_power_that_is_named(kind, snr):
    ecg, mask = sample()
    result = noisy(ecg, mask, snr=snr, kind=kind)
    for n in (0, 1, 3):
        signal, there = ecg[n, : LENGTH[n]].astype(float), mask[n]
        noise = (result[n, : LENGTH[n]] - signal)[:, there]
        power = signal[:, there].var(axis=0).sum() / (noise**2).mean(axis=0).sum()
        assert 10 * np.log10(power) == pytest.approx(snr, abs=0.02)  # rounded to microvolts
        share = (noise**2).mean(axis=0)
        assert share.max() < (6 if kind == "baseline wander" else 1.5) * share.mean()


def test_noise_keeps_to_leads_and_samples_that_are_there():
    ecg, mask = sample()
    result = noisy(ecg, mask, snr=0)
    assert result.dtype == np.int16
    assert not result[1][:, ~mask[1]].any()
    assert not result[3, 700:].any()
    assert not result[5].any()
    assert (result[0] != ecg[0]).mean() > 0.9
    flat = np.full_like(ecg, 70)
    np.testing.assert_array_equal(noisy(flat, mask), flat)


def test_noise_lies_in_its_band():
    ecg, mask = sample()
    frequency = np.fft.rfftfreq(T, 1 / RATE)
    for kind, (low, high) in robustness.BANDS.items():
        noise = noisy(ecg, mask, snr=-10, kind=kind)[0] - ecg[0].astype(float)
        power = (np.abs(np.fft.rfft(noise, axis=0)) ** 2).sum(axis=1)
        inside = (frequency >= low) & (frequency <= high)
        assert power[inside].sum() > 0.999 * power.sum()
        assert (power[inside] > 0).all()


def test_white_noise_is_white_and_leads_are_independent():
    ecg, mask = sample()
    noise = noisy(ecg, mask, snr=0)[0] - ecg[0].astype(float)
    again = np.corrcoef(noise[:-1].ravel(), noise[1:].ravel())[0, 1]
    assert abs(again) < 0.04
    off_diagonal = np.corrcoef(noise.T)[~np.eye(12, dtype=bool)]
    assert np.abs(off_diagonal).max() < 0.15


def test_noise_follows_from_the_record_and_the_seed():
    ecg, mask = sample()
    result = noisy(ecg, mask)
    order = np.array([3, 0, 5, 1, 4, 2])
    shuffled = robustness.add_noise(
        ecg[order], mask[order], LENGTH[order], np.array(list("abcdef"))[order], snr=10, rate=RATE
    )
    np.testing.assert_array_equal(shuffled, result[order])
    np.testing.assert_array_equal(noisy(ecg, mask, "abcdef"), result)
    assert (noisy(ecg, mask, "xbcdef")[0] != result[0]).any()
    assert (noisy(ecg, mask, seed=1)[0] != result[0]).any()
    # The same noise at another SNR, but for its size.
    less = noisy(ecg, mask, snr=30)[0] - ecg[0].astype(float)
    np.testing.assert_allclose(less * 10, result[0] - ecg[0].astype(float), atol=6)


def test_noise_saturates():
    ecg, mask = sample()
    ecg[0] = np.sign(np.sin(np.arange(T)))[:, None] * 32000
    result = noisy(ecg, mask, snr=0)
    assert result[0].max() == 32767
    assert result[0].min() == -32768
    assert ((result[0] > 0) == (ecg[0] > 0)).mean() > 0.8  # no value wrapped around


def test_noise_that_cannot_be_made_is_refused():
    ecg, mask = sample()
    with pytest.raises(UserError, match="unknown noise 'pink'"):
        noisy(ecg, mask, kind="pink")
    with pytest.raises(UserError, match="must be a number of dB"):
        noisy(ecg, mask, snr=float("nan"))
    with pytest.raises(UserError, match="record b has 90 samples at 100 Hz: too few"):
        robustness.add_noise(
            *(ecg[:2], mask[:2], [1000, 90], ["a", "b"]), snr=0, rate=RATE, kind="baseline wander"
        )


def sine(frequency, rate=RATE, n=T):
    wave = 1000 * np.sin(2 * np.pi * frequency * np.arange(n) / rate)
    return np.repeat(np.rint(wave).astype(np.int16)[None, :, None], 12, axis=2)


@pytest.mark.parametrize("to", [50, 25])
def test_lower_rates_keep_what_they_can_hold(to):
    mask, length = np.ones((1, 12), bool), np.array([T])
    kept, lost = (
        robustness.resample(sine(f), mask, length, rate=RATE, to=to) for f in (to / 5, to * 0.7)
    )
    inner = slice(100, -100)  # the filter's ends aside
    np.testing.assert_allclose(kept[:, inner], sine(to / 5)[:, inner], atol=15)
    assert np.abs(lost[:, inner]).max() < 15  # neither there nor folded to another frequency


def test_resampling_keeps_leads_lengths_and_levels():
    ecg, mask = sample()
    ecg[2] = 300
    result = robustness.resample(ecg, mask, LENGTH, rate=RATE, to=25)
    assert result.dtype == np.int16
    assert result.shape == ecg.shape
    assert not result[1][:, ~mask[1]].any()
    assert not result[3, 700:].any()
    np.testing.assert_array_equal(result[2], 300)  # nor do the ends ring
    assert (result[3, :700] != 0).mean() > 0.9


def test_short_records_are_resampled_by_themselves(monkeypatch):
    ecg, mask = sample()
    monkeypatch.setattr(robustness, "_ROWS", 2)
    together = robustness.resample(ecg, mask, LENGTH, rate=RATE, to=50)
    for n in range(5):
        own = ecg[n : n + 1, : LENGTH[n]]
        alone = robustness.resample(own, mask[n : n + 1], LENGTH[n : n + 1], rate=RATE, to=50)
        np.testing.assert_array_equal(together[n, : LENGTH[n]], alone[0])


def test_resampling_saturates():
    square = np.where(sine(5) >= 0, np.int16(32767), np.int16(-32768))  # overshoots when filtered
    result = robustness.resample(square, np.ones((1, 12), bool), np.array([T]), rate=RATE, to=25)
    assert result.max() == 32767
    same = np.sign(result[0, :, 0]) == np.sign(square[0, :, 0])
    assert same.mean() > 0.85  # all but samples at an edge: none wrapped around


def test_rates_that_are_not_lower_are_refused():
    ecg, mask = sample()
    for to in (100, 500, 0, -50, 33.3):
        with pytest.raises(UserError, match="to a lower rate, not to"):
            robustness.resample(ecg, mask, LENGTH, rate=RATE, to=to)


def test_conditions_give_records():
    original = records()
    names = [c.name for c in robustness.conditions(RATE)]
    assert names[:8] == [f"{n} leads" for n in (12, 8, 6, 4, 3, 2)] + ["1 lead", "SNR 20 dB"]
    assert {"SNR 10 dB", "muscle, SNR 0 dB", "baseline wander, SNR 0 dB"} < set(names)
    assert names[-2:] == ["50 Hz", "25 Hz"]
    assert len(set(names)) == len(names)
    assert [c.name for c in robustness.conditions(50)][-1] == "25 Hz"
    for condition in robustness.conditions(RATE):
        changed = condition.apply(original)
        assert changed.ecg.dtype == np.int16
        assert (changed.ecg != original.ecg).any() == (condition.name != "12 leads")
        same = dataclasses.replace(changed, ecg=original.ecg, lead_mask=original.lead_mask)
        assert same == original
        n = int(condition.name.split()[0]) if "lead" in condition.name else 12
        np.testing.assert_array_equal(
            changed.lead_mask, original.lead_mask & np.isin(LEADS, robustness.SUBSETS[n])
        )
    np.testing.assert_array_equal(original.ecg, records().ecg)
