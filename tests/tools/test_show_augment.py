"""Pictures of augmentations: one well-formed file each, to scale, and wrong input in one line."""

import re
import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from ecg_jax.data import records
from ecg_jax.errors import UserError
from ecg_jax.tools import show_augment

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def show(monkeypatch, simulated, tmp_path):
    """Runs the command on simulated records and returns its pictures by file name."""

    def run(*argv):
        common = [f"--data_dir={simulated}", f"--out={tmp_path}/pictures"]
        monkeypatch.setattr(sys, "argv", ["show_augment", *argv, *common])
        show_augment.main()
        return {p.name: p.read_text() for p in (tmp_path / "pictures").iterdir()}

    return run


def traces(picture, class_):
    """Each drawn lead's path: points [N, 2] in the picture's units, from relative coordinates."""
    paths = ElementTree.fromstring(picture).iter(f"{SVG}path")
    data = [p.get("d") for p in paths if p.get("class") == class_ and len(p.get("d")) > 20]
    numbers = [np.array(re.findall(r"-?\d*\.?\d+", d), float).reshape(-1, 2) for d in data]
    return [np.cumsum(steps, axis=0) for steps in numbers]


def words(picture):
    return [t.text for t in ElementTree.fromstring(picture).iter(f"{SVG}text")]


def test_one_picture_for_each_name(show, simulated):
    record = records.load(simulated, "simulated", 100, "test").record_id[1]
    drawn = show("--names=invert,jigsaw,adjacent", f"--record={record}", "--seed=1")
    assert set(drawn) == {f"augment_{name}.svg" for name in ("adjacent", "invert", "jigsaw")}
    for picture in drawn.values():
        found = words(picture)
        assert [lead for lead in found if lead in ("II", "V1", "V5")] == ["II", "V1", "V5"]
        assert found.count("mV") == 3 and "s" in found and {"0", "5", "10"} <= set(found)
        assert f"simulated record {record}, 100 Hz, seed 1" in found
        assert len(traces(picture, "before")) == 3
        assert not re.search(r"(href|src)=", picture)


def test_before_and_after_are_drawn_to_one_scale(show):
    picture = show("--names=scale", "--seconds=4", "--seed=3")["augment_scale.svg"]
    for before, after in zip(traces(picture, "before"), traces(picture, "after"), strict=True):
        assert before[[0, -1], 0] == pytest.approx(after[[0, -1], 0])
        gain = np.ptp(after[:, 1]) / np.ptp(before[:, 1])
        assert 0.8 < gain < 1.25 and abs(gain - 1) > 0.01


def test_what_a_crop_leaves_is_drawn_to_the_records_scale(show):
    picture = show("--names=crop")["augment_crop.svg"]
    for before, after in zip(traces(picture, "before"), traces(picture, "after"), strict=True):
        assert after[0, 0] == pytest.approx(before[0, 0])
        assert np.ptp(after[:, 0]) == pytest.approx(np.ptp(before[:, 0]) / 2, rel=0.01)


def test_those_of_a_config_with_its_options(show, tmp_path):
    file = tmp_path / "recipe.py"
    file.write_text(
        "from configs import etp\n\n\ndef get_config(arg=None):\n"
        "    c = etp.get_config('demo')\n    c.normalize = 'record'\n"
        "    c.augment = ({'name': 'scale', 'low': 0.5}, {'name': 'scale'})\n    return c\n"
    )
    drawn = show(f"--config={file}")
    assert set(drawn) == {"augment_scale.svg", "augment_scale_2.svg"}
    found = words(drawn["augment_scale.svg"])
    assert found[0] == "scale(low=0.5)" and found.count("SD of the record") == 3


def test_a_lead_that_was_not_recorded(simulated):
    record = records.load(simulated, "simulated", 100, "test").take([0])
    record.ecg[:, :, 6] = 0
    record.lead_mask[:, 6] = False
    picture = show_augment.pictures([{"name": "invert"}], record, "millivolt", 0)["invert"]
    assert "V1: not recorded" in words(picture)
    assert len(traces(picture, "before")) == len(traces(picture, "after")) == 2


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--names=blur"], "unknown augmentation 'blur'"),
        (["--names=hum"], "100 Hz hold no hum"),
        (["--names=scale", "--record=nobody"], "no record 'nobody' in simulated test: it has"),
        (["--names=scale", "--seconds=-1"], "--seconds must be at least 1, not -1"),
        (["--names=scale", "--rate=500"], "simulated at 500 Hz is not prepared"),
        (["--config=configs/nope.py"], "no such config file"),
        (["--config=configs/etp.py:paper"], "configs/etp.py:paper has no augmentation"),
    ],
)
def test_wrong_input(show, tmp_path, argv, message):
    with pytest.raises(UserError, match=message):
        show(*argv)
    assert not (tmp_path / "pictures").exists()


def test_a_crop_of_a_shorter_record(show, tmp_path):
    """The default takes the whole record; one that says more than there is is refused."""
    assert list(show("--names=crop", "--seconds=4")) == ["augment_crop.svg"]
    file = tmp_path / "mine.py"
    file.write_text(
        "from configs import simclr\n\n\ndef get_config(arg=None):\n"
        "    c = simclr.get_config('demo')\n"
        "    c.augment = ({'name': 'crop', 'seconds': 5.0},)\n    return c\n"
    )
    with pytest.raises(UserError, match="crop cuts 5 s out of 4 s"):
        show(f"--config={file}", "--seconds=4")
