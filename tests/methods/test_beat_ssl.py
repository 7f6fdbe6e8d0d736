"""Beat-SSL: targets and losses against float64, 3KG's views, regions at beats, records without."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import approx_fprime

from configs import beat_ssl as config_file
from ecg_jax.data import physiology, physiology_table, three_kg
from ecg_jax.data.leads import LEADS
from ecg_jax.data.vcg import LEADS_FROM_VCG, VCG_FROM_LEADS
from ecg_jax.errors import UserError
from ecg_jax.losses import contrastive, soft_targets
from ecg_jax.methods import View, beat_ssl
from ecg_jax.models import beat_regions, resnet1d
from ecg_jax.runtime import parallel

N, D, TEMPERATURE = 8, 5, 0.2
RNG = np.random.default_rng(0)
Z = RNG.normal(size=(2 * N, D))
Z /= np.linalg.norm(Z, axis=1, keepdims=True)
F = np.where(RNG.random((N, 4)) < 0.2, np.nan, RNG.normal(size=(N, 4)))
F[3] = np.nan  # of which nothing is known
RAW = np.exp(RNG.normal(0, 0.3, (N, 3)))
RAW[5, 1] = np.nan
GROUP = np.array([0, 1, 0, -1, 2, 1, 1, 0])


def wanted(kind, sharpness, valid):
    """The targets [2N, 2N], entry by entry."""
    t = np.zeros((2 * N, 2 * N))
    for a in range(2 * N):
        for b in range(2 * N):
            i, j = a % N, b % N
            if a == b or not (valid.ravel()[a] and valid.ravel()[b]):
                continue
            if i == j:
                t[a, b] = 1
            elif kind == "class":
                t[a, b] = GROUP[i] == GROUP[j] >= 0
            elif kind == "cosine" and np.isfinite(RAW[[i, j]]).all():
                u, v = RAW[i], RAW[j]
                t[a, b] = (u @ v / np.linalg.norm(u) / np.linalg.norm(v)) ** sharpness
            elif kind in ("exp", "softclt"):
                both = np.isfinite(F[i]) & np.isfinite(F[j])
                if both.any():
                    d = np.sqrt(np.mean((F[i, both] - F[j, both]) ** 2))
                    soft = 2 / (1 + np.exp(sharpness * d))
                    t[a, b] = np.exp(-sharpness * d) if kind == "exp" else soft
    return t


def oracle(z, t, form):
    """The mean over the rows that have a positive."""
    there = (t.sum(axis=0) + t.sum(axis=1)) > 0
    terms = []
    for i in np.flatnonzero(t.sum(axis=1) > 0):
        others = [j for j in range(len(z)) if j != i and there[j]]
        logits = np.array([z[i] @ z[j] / TEMPERATURE for j in others])
        logs = logits - np.log(np.exp(logits).sum())
        weight = t[i, others] if form == "weighted" else t[i, others] / t[i].sum()
        terms.append(-(weight * logs).sum())
    return np.mean(terms)


def ours(kind, sharpness, valid):
    like = jnp.full((N, N), -jnp.inf)
    if kind != "identity":
        like = soft_targets.likeness(kind, *(jnp.asarray(x, jnp.float32) for x in (F, RAW)), GROUP)
    return soft_targets.of_views(soft_targets.targets(kind, like, sharpness), jnp.asarray(valid))


@pytest.mark.parametrize("kind", soft_targets.KINDS)
def test_targets(kind):
    valid = np.ones((2, N), bool)
    valid[1, 2] = valid[0, 6] = valid[1, 6] = False
    found = ours(kind, 3.0, valid)
    np.testing.assert_allclose(found, wanted(kind, 3.0, valid), atol=2e-5)
    np.testing.assert_allclose(found, found.T, atol=1e-6)


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("form", soft_targets.FORMS)
def test_value_and_gradient(form, devices):
    valid = np.ones((2, N), bool)
    valid[:, 4] = False
    t = wanted("exp", 1.5, valid)
    mesh = parallel.make_mesh(jax.devices()[:devices])
    z = parallel.put(Z.astype(np.float32), parallel.by_record(mesh))

    def loss(z, t):
        return soft_targets.contrast(z, t, TEMPERATURE, form).value

    value, gradient = jax.jit(jax.value_and_grad(loss))(z, jnp.asarray(t, jnp.float32))
    np.testing.assert_allclose(value, oracle(Z, t, form), rtol=1e-5)
    numeric = approx_fprime(Z.ravel(), lambda x: oracle(x.reshape(Z.shape), t, form), 1e-7)
    np.testing.assert_allclose(gradient, numeric.reshape(Z.shape), atol=2e-5)


def test_identity_is_nt_xent():
    z = jnp.asarray(Z, jnp.float32)
    found = soft_targets.contrast(z, ours("identity", 1.0, np.ones((2, N), bool)), TEMPERATURE)
    expected = contrastive.nt_xent(z[:N], z[N:], TEMPERATURE)
    np.testing.assert_allclose(found.value, expected, rtol=1e-6)
    np.testing.assert_allclose([found.entropy, found.positives], [0, 1], atol=1e-6)


def test_the_least_value_is_the_targets_entropy():
    """Reached where the similarities are the targets' logarithms: so for any targets of rank D."""
    t = wanted("exp", 1.0, np.ones((2, N), bool))
    found = soft_targets.contrast(jnp.asarray(Z, jnp.float32), jnp.asarray(t), TEMPERATURE)
    q = t / t.sum(axis=1, keepdims=True)
    entropy = -np.sum(np.where(q > 0, q * np.log(np.where(q > 0, q, 1)), 0), axis=1)
    np.testing.assert_allclose(found.entropy, entropy.mean(), rtol=1e-5)
    np.testing.assert_allclose(found.positives, np.exp(entropy).mean(), rtol=1e-5)
    assert found.value >= found.entropy


def test_the_papers_drawing():
    """Three signals, cosines to the power 50 of .97, .80 and .70, two views."""
    high = np.array([0.97, 0.80, 0.70]) ** (1 / 50)
    gram = np.array([[1, high[0], high[1]], [high[0], 1, high[2]], [high[1], high[2], 1]])
    raw = jnp.asarray(np.linalg.cholesky(gram), jnp.float32)
    like = soft_targets.likeness("cosine", raw, raw, None)
    found = soft_targets.of_views(
        soft_targets.targets("cosine", like, 50.0), jnp.ones((2, 3), bool)
    )
    one = np.array([[1, 0.97, 0.80], [0.97, 1, 0.70], [0.80, 0.70, 1]])
    np.testing.assert_allclose(found, np.tile(one, (2, 2)) - np.eye(6), atol=1e-4)


@pytest.mark.parametrize("kind", ["exp", "cosine", "softclt"])
def test_calibrated(kind):
    rng = np.random.default_rng(1)
    f = jnp.asarray(rng.normal(size=(64, 6)), jnp.float32)
    raw = jnp.exp(0.3 * f)
    like = soft_targets.likeness(kind, f, raw, None)
    valid = jnp.ones((2, 64), bool)
    for positives in (4.0, 20.0):
        t = soft_targets.calibrated(kind, like, valid, positives)
        _, entropy, _ = soft_targets.effective(t)
        np.testing.assert_allclose(np.exp(entropy).mean(), positives, rtol=0.02)
    # Nothing is known of any: the other view is all there is.
    nothing = jnp.full((64, 64), jnp.inf if kind == "softclt" else -jnp.inf)
    _, entropy, rows = soft_targets.effective(
        soft_targets.calibrated(kind, nothing, valid, positives)
    )
    assert rows.all() and np.abs(entropy).max() < 1e-5


def ecg(T=40, B=3):
    return jnp.asarray(np.random.default_rng(2).normal(size=(B, T, 12)), jnp.float32)


def test_no_turn_is_the_projection_onto_a_dipole():
    x, mask = ecg(), jnp.ones((3, 12), bool).at[2, LEADS.index("V2")].set(False)
    still = three_kg.turn(jax.random.key(0), x, mask, 0.0, 1.0)
    projected = np.asarray(x) @ (VCG_FROM_LEADS.T @ LEADS_FROM_VCG.T)
    np.testing.assert_allclose(still[:2], projected[:2], atol=2e-5)
    np.testing.assert_array_equal(still[2], x[2])  # it has no vector
    again = three_kg.turn(jax.random.key(0), still, mask, 0.0, 1.0)
    np.testing.assert_allclose(again[:2], still[:2], atol=2e-5)


def test_a_turn_keeps_the_vectors_length_and_the_limb_leads_laws():
    x, mask = ecg(), jnp.ones((3, 12), bool)
    turned = three_kg.turn(jax.random.key(1), x, mask, 45.0, 1.0)
    before, after = np.asarray(x) @ VCG_FROM_LEADS.T, np.asarray(turned) @ VCG_FROM_LEADS.T
    np.testing.assert_allclose(
        np.linalg.norm(after, axis=2), np.linalg.norm(before, axis=2), rtol=1e-3, atol=1e-4
    )
    assert np.abs(after - before).max() > 0.1
    lead = {name: np.asarray(turned)[..., i] for i, name in enumerate(LEADS)}
    np.testing.assert_allclose(lead["III"], lead["II"] - lead["I"], atol=2e-5)
    np.testing.assert_allclose(lead["aVF"], lead["II"] - lead["I"] / 2, atol=2e-5)
    longer = three_kg.turn(jax.random.key(1), x, mask, 0.0, 1.5)
    ratio = (np.asarray(longer) @ VCG_FROM_LEADS.T) / before
    assert ratio.min() > 1 - 1e-3 and ratio.max() < 1.5 + 1e-3 and ratio.std() > 0.01


def test_erased():
    x = ecg(T=41) + 10
    gone = np.asarray(three_kg.erase(jax.random.key(3), x, 0.5) == 0)
    np.testing.assert_array_equal(gone.sum(axis=1), 20)
    edges = np.abs(np.diff(gone, axis=1, append=gone[:, :1])).sum(axis=1)
    np.testing.assert_array_equal(edges, 2)  # one stretch, round the end
    assert len(np.unique(gone.argmax(axis=1))) > 8  # of each lead its own
    np.testing.assert_array_equal(three_kg.erase(jax.random.key(3), x, 0.0), x)


def test_an_impulse_moves_the_region_at_its_beat_and_no_other():
    rate, T = 100, 960
    L = -(-T // resnet1d.STRIDE)
    peak = jnp.array([[64, 480, 896]])
    for number, sample in enumerate([64, 480, 896]):
        one = jnp.zeros((1, L, 1)).at[0, round(sample / resnet1d.STRIDE)].set(1.0)
        found = beat_regions.regions(one, peak, resnet1d.STRIDE, rate)[0]
        assert found.shape == (3, beat_regions.PLACES)
        assert (np.abs(found).max(axis=1) > 0.2).tolist() == [i == number for i in range(3)]
    # Between two positions, in proportion; a line is read as a line.
    line = jnp.arange(L, dtype=jnp.float32)[None, :, None]
    found = beat_regions.regions(line, peak, resnet1d.STRIDE, rate)[0, 1]
    offsets = np.linspace(-beat_regions.BEFORE, beat_regions.AFTER, beat_regions.PLACES)
    np.testing.assert_allclose(found, (480 + offsets * rate) / resnet1d.STRIDE, rtol=1e-5)


def test_the_encoders_positions_are_where_regions_look(monkeypatch):
    """Position p sees what is around sample 32 p, as far before it as after it."""
    monkeypatch.setattr(resnet1d, "STAGES", {18: (1, 1, 1, 1)})
    network = resnet1d.ResNet1D(width=4, form="plain")
    x = jnp.zeros((1, 640, 12))
    variables = network.init(jax.random.key(0), x, train=False)

    def middle(x):
        return network.apply(variables, x, train=False, pool=False)[0, 10].sum()

    felt = np.abs(jax.grad(middle)(x + ecg(640, 1)))[0].sum(axis=1)
    seen = np.flatnonzero(felt > 0)
    assert abs((seen[0] + seen[-1]) / 2 - 10 * resnet1d.STRIDE) <= resnet1d.STRIDE / 4


@pytest.fixture
def config(monkeypatch):
    monkeypatch.setattr(resnet1d, "STAGES", {18: (1, 1)})
    c = config_file.get_config("rate=100,modern")
    c.model.update(width=4, hidden=8, dim=4, beats=3, convolution="plain", positives=2.0)
    c.update(seconds=2.0, batch_size=4)
    return c


def features(T, rate=100, **fields):
    """Of four records: with beats, with one, without, and with beats of which nothing is known."""
    blank = physiology_table.blank(4, T, rate)
    rng = np.random.default_rng(3)
    peak, beat, record = (np.array(x) for x in (blank.peak, blank.beat, blank.record))
    peak[0, :3], peak[1, 0], peak[3, :2] = [40, 90, 150], 60, [50, 120]
    beat[0, :3], beat[1, 0] = rng.normal(size=(3, beat.shape[2])), 0.0
    record[:2] = rng.normal(size=(2, record.shape[1]))
    kinds = np.where(peak >= 0, 0, -1).astype(np.int32)
    return blank._replace(peak=peak, beat=beat, record=record, beat_class=kinds, **fields)


@pytest.mark.parametrize("kind", ["exp", "class"])
def test_no_beat_one_beat_missing_numbers(config, kind):
    config.model.beat = kind
    config.model.against = "record" if kind == "class" else "batch"
    method, T = beat_ssl.build(config), 200
    rows = jnp.arange(4)
    given = View(ecg(T, 4), jnp.ones((4, 12), bool), jnp.zeros((4, 0)), rows, rows, rows)
    params, state = method.init(jax.random.key(0), given)
    step = jax.jit(jax.value_and_grad(method.loss, has_aux=True))
    found = {}
    for name, shown in {
        "some": jax.tree.map(jnp.asarray, features(T)),
        "none": None,
    }.items():
        (value, (_, metrics)), gradient = step(
            params, state, given._replace(physiology=shown), jax.random.key(1)
        )
        assert np.isfinite(value) and all(np.isfinite(list(metrics.values())))
        assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradient))
        found[name] = metrics, gradient["beat_projector"]
    assert found["none"][0]["beat"] == 0 == found["none"][0]["beat_excess"]
    assert found["some"][0]["beat"] > 0
    size = [sum(np.abs(g).sum() for g in jax.tree.leaves(of[1])) for of in found.values()]
    assert size[0] > 0 and size[1] == 0
    np.testing.assert_allclose(found["none"][0]["rhythm_positives"], 1, rtol=1e-5)


def test_beats_that_a_view_does_not_show_are_left_out():
    x = jnp.ones((1, 2, 200, 12)).at[0, 1, 60:130].set(0.0)
    peak = jnp.array([[30, 90, 160, -1]])
    chosen, there = beat_ssl._drawn(jax.random.key(0), peak, x, 4, 100)
    place = np.argsort(chosen[0])
    np.testing.assert_array_equal(there[0, 0, place], [True, True, True, False])
    np.testing.assert_array_equal(there[1, 0, place], [True, False, True, False])


def test_the_table_of_physiology():
    rng = np.random.default_rng(4)
    found = physiology.blank(40, 1000, 100)
    record, beat, peak = (np.array(x) for x in (found.record, found.beat, found.peak))
    record[:30] = rng.normal(5, 3, (30, record.shape[1]))
    record[0, 0], record[:30, 1] = 1e6, 7.0
    peak[:, :6] = np.arange(6) * 100
    beat[:, :6] = rng.normal(size=(40, 6, beat.shape[2])) + 6 * (np.arange(6) % 2)[:, None]
    table = physiology_table.of(physiology.Physiology(record, peak, beat))
    np.testing.assert_allclose(np.nanmedian(table.record[:, 2:], axis=0), 0, atol=1e-6)
    assert table.record[0, 0] == physiology_table.CLIP and np.isnan(table.record[30:]).all()
    np.testing.assert_array_equal(table.record[:30, 1], 0)
    np.testing.assert_allclose(table.record_raw[:, 1], record[:, 3] * 1000, rtol=1e-5)
    kinds = table.beat_class
    assert (kinds[peak < 0] == -1).all() and (kinds[peak >= 0] >= 0).all()
    assert not set(kinds[:, 0:6:2].ravel()) & set(kinds[:, 1:6:2].ravel())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rhythm": "class"}, r"rhythm=class: choose one of exp, cosine, softclt, identity"),
        ({"beat": "hard"}, r"beat=hard: choose one of .*, none"),
        ({"positives": 0.5}, r"positives=0\.5, exponent=50\.0: a row has one"),
        ({"beats": 0}, r"beats=0, beat_weight=1\.0: one beat or more"),
        ({"scale": 0.5}, r"scale"),
    ],
)
def test_bad_input(config, fields, message):
    config.model.update(fields)
    with pytest.raises(UserError, match=message):
        beat_ssl.build(config)


@pytest.mark.parametrize("name", ["crop", "shift", "permute"])
def test_augmentations_that_move_beats_are_refused(config, name):
    config.augment = ({"name": name},)
    with pytest.raises(UserError, match=name):
        beat_ssl.build(config)
