"""Augmentations keep shapes and absent leads, differ between records, and do what they say."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from ecg_jax.data import noise, vcg
from ecg_jax.data.augment import NAMES, adjacent, compose, jigsaw, length
from ecg_jax.data.leads import LEADS
from ecg_jax.errors import UserError
from ecg_jax.runtime import parallel

# name -> the lowest of the prepared rates that it serves
RATES = dict.fromkeys(("scale", "jitter", "shift", "time_mask", "lead_mask", "wander"), 100)
RATES |= dict.fromkeys(("invert", "crop_resize", "permute", "vcg", "muscle"), 100)
RATES |= {"frequency_mask": 100, "hum": 500}
RATE, T, B = 100, 1000, 16
SHORTER = "crop"  # alone changes the length, and has tests of its own


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    mask = np.ones((B, 12), bool)
    mask[:, 5] = False
    ecg = rng.standard_normal((B, T, 12)).astype(np.float32) * mask[:, None]
    return jnp.asarray(ecg), jnp.asarray(mask)


@functools.lru_cache
def jitted(name, rate, options):
    return jax.jit(compose([{"name": name, **dict(options)}], rate))


def applied(batch, seed=0, rate=None, *, name, **options):
    apply = jitted(name, rate or RATES[name], tuple(options.items()))
    return apply(jax.random.key(seed), *batch)


def ramp(n=B, length=T):
    """Records whose every sample says where it stood: t in lead I, T + t in II, and so on."""
    one = np.arange(12)[None, :] * length + np.arange(length)[:, None]
    return jnp.asarray(np.broadcast_to(one, (n, length, 12)), jnp.float32), jnp.ones((n, 12), bool)


def silence(n, length):
    return jnp.zeros((n, length, 12)), jnp.ones((n, 12), bool)


def power(x):
    return np.abs(np.fft.rfft(np.asarray(x, np.float64), axis=1)) ** 2


@pytest.mark.parametrize("name", RATES)
def test_drawn_anew_for_every_record_and_key(batch, name):
    ecg, mask = applied(batch, name=name)
    assert ecg.shape == batch[0].shape
    assert not ecg[:, :, 5].any()
    assert not mask[:, 5].any()
    again, other = applied(batch, name=name)[0], applied(batch, seed=1, name=name)[0]
    np.testing.assert_array_equal(ecg, again)
    assert (ecg != other).any()
    same = jnp.broadcast_to(batch[0][:1], batch[0].shape), batch[1]
    assert len(np.unique(np.asarray(applied(same, name=name)[0]), axis=0)) > 1


@pytest.mark.parametrize("name", RATES)
def test_the_dtype_stays(name):
    ecg, mask = jnp.ones((8, 128, 12), jnp.bfloat16), jnp.ones((8, 12), bool)
    out = jax.eval_shape(compose([{"name": name}], RATES[name]), jax.random.key(0), ecg, mask)
    assert (out[0].dtype, out[0].shape) == (jnp.bfloat16, ecg.shape)
    assert (out[1].dtype, out[1].shape) == (jnp.bool_, mask.shape)


def test_eight_devices_draw_what_one_draws(batch):
    chain = jax.jit(compose([{"name": name} for name in RATES], 500))
    batch = batch[0][:, :200], batch[1]
    one = chain(jax.random.key(0), *batch)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spread = jax.device_put(batch, NamedSharding(mesh, PartitionSpec("data")))
    eight = chain(jax.random.key(0), *spread)
    assert len(eight[0].sharding.device_set) == 8
    np.testing.assert_allclose(one[0], eight[0], atol=2e-5)
    np.testing.assert_array_equal(one[1], eight[1])


@pytest.mark.parametrize("name", ["muscle", "frequency_mask"])
def test_no_device_gathers_the_batch(batch, name):
    mesh = parallel.make_mesh()
    ecg, mask = (parallel.put(np.asarray(x), parallel.by_record(mesh)) for x in batch)
    apply = compose([{"name": name}], 100)

    @jax.jit
    def run(key, ecg, mask):
        with parallel.mesh_of(ecg):
            return apply(key, ecg, mask)[0]

    key = jax.random.key(0)
    assert "all-gather" not in run.lower(key, ecg, mask).compile().as_text()
    np.testing.assert_allclose(run(key, ecg, mask), applied(batch, name=name)[0], atol=1e-6)


def test_every_augmentation_is_tested():
    assert {*RATES, SHORTER} == set(NAMES)


@pytest.mark.parametrize("name", ["jitter", "wander", "hum", "muscle"])
@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_disturbances_keep_einthovens_and_goldbergers_laws(name, kind):
    x = heart(np.random.default_rng(0), length=500)[1]
    options = {"amplitude" if name == "hum" else "sd": 1.0}
    mask = jnp.ones((B, 12), bool)
    y, _ = applied((jnp.asarray(x, kind), mask), rate=500, name=name, **options)
    assert (np.asarray(y, np.float64) - x).std(axis=1).mean() > 0.1
    assert breach(y) < (1e-5 if kind == "float32" else 0.1)


@pytest.mark.parametrize("name", ["jitter", "wander", "hum", "muscle"])
def test_disturbances_are_as_large_in_leads_as_stated(name):
    """I, II, III and V1-V6 alike, the augmented leads sqrt(3/4) of that, and chest leads share
    Wilson's terminal alone: 1/6 of their variance."""
    options = {"amplitude" if name == "hum" else "sd": 1.0}
    wave, _ = applied(silence(512, 500), rate=500, name=name, **options)
    x = np.asarray(wave, np.float64)
    size = np.sqrt((x**2).mean(axis=(0, 1)))
    plain = [i for i, lead in enumerate(LEADS) if not lead.startswith("a")]
    ratio = np.array([1.0 if i in plain else np.sqrt(3 / 4) for i in range(12)])
    np.testing.assert_allclose(size / size[plain].mean(), ratio, rtol=0.08)
    across = np.corrcoef(x.reshape(-1, 12).T)
    chest = across[6:, 6:][~np.eye(6, dtype=bool)]
    assert chest.mean() == pytest.approx(1 / 6, abs=0.06)
    assert across[0, 1] == pytest.approx(1 / 2, abs=0.1) and abs(across[0, 6]) < 0.12
    if name == "jitter":  # strengths are uniform up to sd
        assert size[plain].mean() == pytest.approx(np.sqrt(1 / 3), rel=0.05)


def test_crop_cuts_a_stretch_out_of_the_record_as_it_is():
    ecg, mask = ramp(64)
    y, kept = jitted("crop", RATE, (("seconds", 3.0),))(jax.random.key(0), ecg + 1, mask)
    start = np.asarray(y)[:, 0, 0] - 1
    expected = start[:, None, None] + 1 + np.arange(300)[:, None] + T * np.arange(12)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(kept, mask)
    assert 0 <= start.min() < 100 and 600 < start.max() <= 700 and len(np.unique(start)) > 50
    whole, _ = compose([{"name": "crop", "seconds": 10.0}], RATE)(jax.random.key(1), ecg, mask)
    np.testing.assert_array_equal(whole, ecg)


def test_crop_of_a_record_that_ends_early():
    ecg, mask = ramp(64)
    ended = jnp.where(jnp.arange(T)[:, None] < 400, ecg + 1, 0)
    y = jitted("crop", RATE, (("seconds", 3.0),))(jax.random.key(0), ended, mask)[0]
    start = np.asarray(y)[:, 0, 0] - 1
    assert start.max() <= 100 and len(np.unique(start)) > 20 and np.asarray(y).all()
    y = jitted("crop", RATE, (("seconds", 5.0),))(jax.random.key(0), ended, mask)[0]
    np.testing.assert_array_equal(y, ended[:, :500])  # shorter than that: its beginning


def test_what_follows_a_crop_is_of_its_length(batch):
    others = [{"name": name} for name in RATES if RATES[name] == RATE]
    chain = jax.jit(compose([{"name": "crop", "seconds": 2.5}, *others], RATE))
    ecg, mask = chain(jax.random.key(0), *batch)
    assert ecg.shape == (B, 250, 12) and mask.shape == (B, 12)
    assert not ecg[:, :, 5].any() and length([{"name": "crop", "seconds": 2.5}], 10.0) == 2.5
    assert length([{"name": "crop"}], 10.0) == 5.0 and length(others, 10.0) == 10.0
    assert length([{"name": "crop"}], 2.5) == 2.5


def test_crop_that_cannot_be():
    with pytest.raises(UserError, match="crop comes first"):
        compose([{"name": "scale"}, {"name": "crop"}], RATE)
    with pytest.raises(UserError, match="crop comes first"):
        compose([{"name": "crop"}, {"name": "crop"}], RATE)
    with pytest.raises(UserError, match="crop cuts 11 s out of 10 s"):
        length([{"name": "crop", "seconds": 11}], 10.0)
    with pytest.raises(UserError, match="crop cuts 11 s out of 10 s"):
        compose([{"name": "crop", "seconds": 11}], RATE)(jax.random.key(0), *ramp(2))


def test_scale_is_one_gain_within_its_bounds(batch):
    ecg, _ = applied(batch, name="scale", low=0.5, high=2.0)
    there = np.asarray(batch[1])[0]
    gain = np.asarray(ecg / batch[0])[:, :, there]
    np.testing.assert_allclose(gain.std(axis=(1, 2)), 0, atol=1e-5)
    assert (gain > 0.499).all() and (gain < 2.001).all()


def test_invert_turns_whole_records(batch):
    x, y = np.asarray(batch[0]), np.asarray(applied(batch, name="invert")[0])
    kept, turned = ((y == sign * x).all(axis=(1, 2)) for sign in (1, -1))
    assert (kept ^ turned).all() and kept.any() and turned.any()
    np.testing.assert_array_equal(applied(batch, name="invert", probability=1.0)[0], -x)


def test_shift_moves_and_fills_with_zeros(batch):
    ecg, _ = applied(batch, name="shift", fraction=0.3)
    for x, y in zip(np.asarray(batch[0]), np.asarray(ecg), strict=True):
        offset = next(i for i in range(301) if np.array_equal(x[i:], y[: T - i]))
        assert not y[T - offset :].any()


def test_masks_hide_at_most_what_they_say(batch):
    hidden = ~np.asarray(applied(batch, name="time_mask", fraction=0.3)[0]).any(axis=2)
    assert hidden.any() and hidden.sum(axis=1).max() <= 301


def test_lead_mask_drops_each_lead_and_leaves_one(batch):
    alone = set()
    for probability, expected in ((0.0, 11), (0.4, 6.6), (0.95, 1.1), (1.0, 1)):
        counts = []
        for seed in range(20):
            ecg, mask = applied(batch, seed, name="lead_mask", probability=probability)
            np.testing.assert_array_equal(np.asarray(ecg).any(axis=1), np.asarray(mask))
            counts.append(np.asarray(mask).sum(axis=1))
            alone |= set(np.asarray(mask)[counts[-1] == 1].argmax(axis=1))
        assert np.min(counts) >= 1 and abs(np.mean(counts) - expected) < 0.3
    assert alone == set(range(12)) - {5}  # the lead that no record has


def test_crop_resize_is_linear_interpolation(batch):
    x = np.array(batch[0])
    x[:, :, 0] = np.arange(T)  # tells which times were drawn
    y = np.asarray(applied((jnp.asarray(x), batch[1]), name="crop_resize", least=0.6)[0])
    starts, widths = y[:, 0, 0], y[:, -1, 0] - y[:, 0, 0]
    assert (widths >= 0.6 * (T - 1) - 0.1).all() and (widths <= T - 1).all()
    assert (starts >= 0).all() and np.ptp(starts) > 50 and np.ptp(widths) > 50
    for before, after, start, width in zip(x, y, starts, widths, strict=True):
        times = start + width * np.arange(T) / (T - 1)
        for lead in (1, 5, 11):
            expected = np.interp(times, np.arange(T), before[:, lead])
            np.testing.assert_allclose(after[:, lead], expected, atol=2e-3)
    whole, _ = applied(batch, name="crop_resize", least=1.0)
    np.testing.assert_allclose(whole, batch[0], atol=2e-3)  # times to float32


def test_permute_moves_whole_pieces_of_all_leads_alike():
    y = np.asarray(applied(ramp(), name="permute", pieces=4)[0])
    order = y[:, :, 0]
    for lead in range(12):
        np.testing.assert_array_equal(y[:, :, lead] - lead * T, order)
    np.testing.assert_array_equal(np.sort(order, axis=1), np.tile(np.arange(T), (B, 1)))
    breaks = (np.diff(order, axis=1) != 1).sum(axis=1)
    assert breaks.max() == 3 and breaks.mean() > 1.5


@pytest.mark.parametrize("rate", [100, 500])
def test_wander_is_slow_at_any_rate(rate):
    length = 10 * rate
    drift, _ = applied(silence(4, length), rate=rate, name="wander", sd=1.0)
    above = np.fft.rfftfreq(length, 1 / rate) > 1.5
    assert power(drift)[:, above].sum() < 0.02 * power(drift).sum()
    crossings = (np.diff(np.sign(np.asarray(drift)), axis=1) != 0).sum(axis=1)
    assert crossings.max() <= 11


def test_hum_is_one_frequency_of_the_mains():
    wave, _ = applied(silence(B, 5000), name="hum", amplitude=1.0)  # bins of 0.1 Hz
    bins = power(wave).argmax(axis=1)
    assert set(np.unique(bins)) == {500, 600}
    assert (bins == bins[:, :1]).all()
    largest = power(wave).max(axis=1)
    np.testing.assert_allclose(largest, power(wave).sum(axis=1), rtol=1e-5)
    amplitude = np.abs(np.asarray(wave)).max(axis=1)
    assert amplitude.max() <= 1 and amplitude.max() > 0.8 and amplitude.min() < 0.2
    spectrum = np.fft.rfft(np.asarray(wave), axis=1)
    phases = np.angle(np.take_along_axis(spectrum, bins[:, None], axis=1)[:, 0])
    assert phases.std(axis=1).mean() > 1.3  # of uniform ones: 1.8


def test_hum_that_the_rate_cannot_hold():
    with pytest.raises(UserError, match="augmentation hum: records at 100 Hz hold no hum of 50"):
        compose([{"name": "hum"}], 100)
    wave, _ = applied(silence(2, 1000), rate=100, name="hum", mains=(25.0, 50.0))
    assert (power(wave).argmax(axis=1) == 250).all()


def test_muscle_is_fast_and_comes_in_bursts():
    wave, _ = applied(silence(32, T), name="muscle", sd=1.0)
    below = np.fft.rfftfreq(T, 1 / RATE) < 18
    assert power(wave)[:, below].sum() < 0.01 * power(wave).sum()
    quiet = np.asarray(wave) == 0
    assert (quiet.all(axis=2) == quiet.any(axis=2)).all()  # in all leads at once
    assert 0.2 < quiet.mean() < 0.95 and quiet.any(axis=1).mean() > 0.9
    sd = np.asarray(wave).max(axis=1)
    assert sd.max() < 5 and sd.std(axis=1).mean() > 0.2  # each lead has its strength


@pytest.mark.parametrize("length", [1000, 777])
def test_muscle_noise_is_normal_of_variance_1_within_its_band(length):
    x = np.asarray(noise._muscle_noise(jax.random.key(0), (8, length, 12), 500), np.float64)
    f = np.fft.rfftfreq(length, 1 / 500)
    outside = power(x)[:, (f < 20) | (f >= 250)]
    assert outside.sum() < 1e-9 * power(x).sum()
    assert x.var() == pytest.approx(1, abs=0.02)
    assert (x**4).mean() == pytest.approx(3, abs=0.1)
    across = np.corrcoef(x.transpose(0, 2, 1).reshape(96, -1)) - np.eye(96)
    assert np.abs(across).max() < 0.3


def test_frequency_mask_takes_one_band_out_of_all_leads(batch):
    ecg, _ = applied(batch, name="frequency_mask", width=8.0)
    kept = power(ecg)[:, :, :5] > 1e-6 * power(batch[0]).mean()
    assert (kept == kept[:, :, :1]).all()
    np.testing.assert_allclose(power(ecg)[:, :, :5][kept], power(batch[0])[:, :, :5][kept], 1e-3)
    f = np.fft.rfftfreq(T, 1 / RATE)
    widths = []
    for hidden in ~kept[:, :, 0]:
        places = np.flatnonzero(hidden)
        assert len(places) and (np.diff(places) == 1).all() and f[places[-1]] < 40
        widths.append(len(places) / 10)
    assert max(widths) <= 8.1 and np.ptp(widths) > 3


# Rows I, II, V1 ... V6: Dower 1980. Its inverse as published: Edenbrandt and Pahlm 1988.
DOWER = np.array(
    [
        [0.632, -0.235, 0.059],
        [0.235, 1.066, -0.132],
        [-0.515, 0.157, -0.917],
        [0.044, 0.164, -1.387],
        [0.882, 0.098, -1.277],
        [1.213, 0.127, -0.601],
        [1.125, 0.127, -0.086],
        [0.831, 0.076, 0.230],
    ]
)
INVERSE = np.array(
    [
        [0.156, -0.010, -0.172, -0.074, 0.122, 0.231, 0.239, 0.194],
        [-0.227, 0.887, 0.057, -0.019, -0.106, -0.022, 0.041, 0.048],
        [0.022, 0.102, -0.229, -0.310, -0.246, -0.063, 0.055, 0.108],
    ]
)
EIGHT = [0, 1, *range(6, 12)]


def heart(rng, n=B, length=T):
    """A vector [n, length, 3], the twelve leads that it gives by Dower's matrix, and noise on eight
    leads, carried over to the others by Einthoven's and Goldberger's laws."""
    vector = rng.standard_normal((n, length, 3))
    eight = vector @ DOWER.T + 0.2 * rng.standard_normal((n, length, 8))
    return vector, np.asarray(twelve(eight), np.float32)


def twelve(eight):
    one, two = eight[..., 0], eight[..., 1]
    limb = [one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2]
    return np.stack([*limb, *np.moveaxis(eight[..., 2:], -1, 0)], axis=-1)


def breach(ecg):
    """How far the limb leads are from the laws that connect them."""
    ecg = np.asarray(ecg, np.float64)
    return np.abs(twelve(ecg[..., EIGHT])[..., :6] - ecg[..., :6]).max()


def test_vcg_matrices_are_the_published_ones():
    np.testing.assert_array_equal(vcg.LEADS_FROM_VCG[EIGHT], DOWER)
    np.testing.assert_allclose(vcg.VCG_FROM_LEADS[:, EIGHT], INVERSE, atol=0.00051)
    assert not vcg.VCG_FROM_LEADS[:, 2:6].any()


def test_vcg_without_rotation_and_scaling_changes_nothing(batch):
    x = heart(np.random.default_rng(1))[1]
    y, _ = applied((jnp.asarray(x), jnp.ones((B, 12), bool)), name="vcg", degrees=0, scale=1)
    np.testing.assert_allclose(y, x, atol=1e-5)
    np.testing.assert_allclose(
        applied(batch, name="vcg", degrees=0, scale=1)[0], batch[0], atol=1e-5
    )


@pytest.mark.parametrize(("degrees", "scale"), [(45.0, 1.0), (180.0, 1.0), (45.0, 1.5)])
def test_vcg_turns_and_stretches_the_vector_and_keeps_the_rest(degrees, scale):
    _, x = heart(np.random.default_rng(2))
    mask = jnp.ones((B, 12), bool)
    y, _ = applied((jnp.asarray(x), mask), name="vcg", degrees=degrees, scale=scale)
    assert breach(x) < 1e-6 and breach(y) < 5e-6
    inverse = np.linalg.inv(DOWER.T @ DOWER) @ DOWER.T
    before, after = (np.asarray(a, np.float64)[..., EIGHT] for a in (x, y))
    v, w = before @ inverse.T, after @ inverse.T
    rest = before - v @ DOWER.T
    np.testing.assert_allclose(after, w @ DOWER.T + rest, atol=1e-5)
    angles = []
    for a, b in zip(v, w, strict=True):
        matrix, *_ = np.linalg.lstsq(a, b, rcond=None)
        np.testing.assert_allclose(a @ matrix, b, atol=1e-5)
        gains = np.linalg.norm(matrix, axis=0)
        assert (gains > 1 / scale - 1e-5).all() and (gains < scale + 1e-5).all()
        rotation = matrix / gains
        np.testing.assert_allclose(rotation.T @ rotation, np.eye(3), atol=1e-5)
        assert np.linalg.det(rotation) == pytest.approx(1, abs=1e-5)
        angles.append(np.degrees(np.arccos(np.clip((np.trace(rotation) - 1) / 2, -1, 1))))
    assert max(angles) < degrees + 0.01 and np.ptp(angles) > degrees / 3


def test_vcg_of_records_that_lack_leads():
    x = heart(np.random.default_rng(3))[1]
    mask = np.ones((B, 12), bool)
    mask[0, LEADS.index("V3")] = mask[1, LEADS.index("aVL")] = False
    x = np.where(mask[:, None], x, 0)
    y, _ = applied((jnp.asarray(x), jnp.asarray(mask)), name="vcg")
    np.testing.assert_array_equal(y[0], x[0])
    changed = np.abs(np.asarray(y - x)).max(axis=1) > 1e-3
    np.testing.assert_array_equal(changed[1:], mask[1:])


def test_jigsaw_pieces_are_stretches_of_their_segments():
    ecg = ramp(64, 500)[0]
    pieces = np.asarray(jax.jit(lambda k, x: jigsaw(k, x, 5, gap=0.2))(jax.random.key(0), ecg))
    assert pieces.shape == (64, 5, 80, 12)
    start = pieces[:, :, 0, 0]
    expected = start[..., None, None] + np.arange(80)[:, None] + 500 * np.arange(12)
    np.testing.assert_array_equal(pieces, expected)
    segment, place = np.divmod(start, 100)
    np.testing.assert_array_equal(np.sort(segment, axis=1), np.tile(np.arange(5), (64, 1)))
    assert place.max() == 20 and place.min() == 0 and len(np.unique(place)) == 21
    assert len(np.unique(segment, axis=0)) > 30  # of 120 orders
    np.testing.assert_array_equal(
        jigsaw(jax.random.key(1), ecg, 5, gap=0.0).shape, (64, 5, 100, 12)
    )


def test_jigsaw_that_cannot_be():
    ecg = jnp.zeros((2, 100, 12))
    for pieces, gap, message in (
        (1, 0.1, "pieces must be a whole number of at least 2, not 1"),
        (101, 0.1, "100 samples cannot be cut into 101 pieces"),
        (4, 1.0, "100 samples cannot be cut into 4 pieces with gaps of 1"),
        (4, -0.1, r"gap must be in \[0, 1\], not -0.1"),
    ):
        with pytest.raises(UserError, match=message):
            jigsaw(jax.random.key(0), ecg, pieces, gap)


@pytest.mark.parametrize(("parts", "length"), [(2, 500), (3, 333)])
def test_adjacent_segments_follow_each_other(batch, parts, length):
    segments = np.asarray(adjacent(batch[0], parts, rate=RATE))
    assert segments.shape == (B, parts, length, 12)
    for i in range(parts):
        np.testing.assert_array_equal(segments[:, i], batch[0][:, i * length : (i + 1) * length])


def test_records_too_short_for_adjacent_segments():
    ecg = jnp.zeros((2, 256, 12))
    with pytest.raises(
        UserError, match=r"records of 2.56 s give 2 adjacent segments of 1.28 s, and 2 s are needed"
    ):
        adjacent(ecg, rate=100)
    assert adjacent(ecg, rate=100, least=1.28).shape == (2, 2, 128, 12)
    with pytest.raises(UserError, match="parts must be a whole number of at least 2, not 1"):
        adjacent(ecg, 1, rate=100)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (
            {"name": "blur"},
            "unknown augmentation 'blur': there are crop, crop_resize, freq",
        ),
        ({"name": "scale", "wide": 1}, "augmentation scale: .*wide"),
        ({"name": "scale", "low": 0}, "augmentation scale: gains must be above zero"),
        ({"name": "scale", "low": 2, "high": 1}, "from 2 to 1"),
        ({"name": "jitter", "sd": -1}, "augmentation jitter: sd must be at least 0, not -1"),
        ({"name": "jitter", "sd": "much"}, "not 'much'"),
        ({"name": "wander", "sd": float("nan")}, "not nan"),
        ({"name": "hum", "amplitude": -1}, "amplitude must be at least 0"),
        ({"name": "hum", "mains": (-50.0,)}, "mains must be at least 1"),
        ({"name": "muscle", "sd": float("inf")}, "not inf"),
        ({"name": "frequency_mask", "width": 50}, r"width must be in \[0, 40\], not 50"),
        ({"name": "shift", "fraction": 1.5}, r"fraction must be in \[0, 1\], not 1.5"),
        ({"name": "time_mask", "fraction": -0.1}, r"fraction must be in \[0, 1\]"),
        ({"name": "lead_mask", "probability": 2}, r"probability must be in \[0, 1\]"),
        ({"name": "invert", "probability": 2}, r"probability must be in \[0, 1\]"),
        ({"name": "crop_resize", "least": 0}, r"least must be in \[0.1, 1\]"),
        ({"name": "crop", "seconds": 0.5}, "augmentation crop: seconds must be at least 1"),
        ({"name": "permute", "pieces": 1}, "pieces must be a whole number of at least 2"),
        ({"name": "permute", "pieces": 2.5}, "pieces must be a whole number of at least 2"),
        ({"name": "vcg", "degrees": 200}, r"degrees must be in \[0, 180\]"),
        ({"name": "vcg", "scale": 0.9}, "scale must be at least 1"),
    ],
)
def test_a_wrong_step_is_named(step, message):
    with pytest.raises(UserError, match=message):
        compose([step], 500)


def test_a_rate_without_muscle():
    with pytest.raises(UserError, match="augmentation muscle: records at 40 Hz"):
        compose([{"name": "muscle"}], 40)
