"""Methods under the augmentation `crop`: the encoder sees stretches, or it is refused."""

import agreement
import jax
import jax.numpy as jnp
import pytest

from ecg_jax.errors import UserError
from ecg_jax.methods import Plan, build
from ecg_jax.models import resnet1d, wav2vec2
from ecg_jax.run.experiment import blank

ALIGNED = {"tstcc", "astcl", "beat_ssl"}  # they hold both views' times against each other
SECONDS = 10.0


def cropped(name, first=5.0, second=5.0):
    config = agreement.tiny(name, "")
    config.seconds = SECONDS
    chains = {"augment": first, "augment_second": second}
    for field, seconds in chains.items():
        if config[field] or field == "augment":
            others = (step for step in config[field] if step["name"] != "crop")
            config[field] = ({"name": "crop", "seconds": seconds}, *others)
    return config


@pytest.mark.parametrize("name", [*agreement.METHODS, *agreement.VARIANTS])
def test_the_encoder_sees_stretches(name, monkeypatch):
    agreement.shallow(monkeypatch.setattr)
    config = cropped(name, 2.0 if name == "clocs_cmsmlc" else 5.0)  # of halves
    if config.method in ALIGNED:
        with pytest.raises(UserError, match=f"{config.method} compares the times of one view"):
            build(config)
        return
    of = (
        (wav2vec2.Wav2Vec2, "tokens") if name.startswith("w2v") else (resnet1d.ResNet1D, "__call__")
    )
    seen, call = [], getattr(*of)

    def watched(self, x, *args, **options):
        seen.append(x.shape[1])
        return call(self, x, *args, **options)

    method, B = build(config), config.batch_size
    view = blank(round(SECONDS * config.rate), 24 if "text" in config else 0)
    params, state = jax.eval_shape(method.init, jax.random.key(0), view)
    if method.memory is not None:
        memory = jax.eval_shape(lambda p, s: method.memory(p, s, Plan(B, 120)), params, state)
        state = {**state, "memory": memory}
    view = jax.tree.map(lambda x: jax.ShapeDtypeStruct((B, *x.shape[1:]), x.dtype), view)
    with monkeypatch.context() as patch:
        patch.setattr(*of, watched)
        jax.eval_shape(method.loss, params, state, view, jax.random.key(0))
    assert seen and max(seen) <= config.augment[0]["seconds"] * config.rate
    encoded = jax.eval_shape(method.encode, params, state, view.ecg, view.lead_mask)
    assert encoded.features.dtype == jnp.float32  # of whole records


@pytest.mark.parametrize("name", ["simclr", "pirl", "etp"])
def test_views_of_two_lengths_are_refused(name):
    config = cropped(name)
    if name == "etp":
        config.model.invariance = 1.0
    config.augment_second = ({"name": "crop", "seconds": 4.0},)
    with pytest.raises(UserError, match=r"augment last 5 s and those of augment_second 4 s"):
        build(config)


@pytest.mark.parametrize(
    ("name", "seconds", "message"),
    [
        ("simclr", 10.5, "crop cuts 10.5 s out of 10 s"),
        ("etp", 10.5, "crop cuts 10.5 s out of 10 s"),
        ("clocs", 6.0, "crop cuts 6 s out of 5 s"),
        ("cpc", 4.0, "and 4 s have 4: set --config.seconds .or the crop's. to at least 5"),
        ("pirl", 4.0, "records of 4 s are cut into at least 2 pieces"),
    ],
)
def test_stretches_too_long_or_too_short(name, seconds, message):
    with pytest.raises(UserError, match=message):
        build(cropped(name, seconds, seconds))
