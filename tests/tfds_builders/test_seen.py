"""Signals that a build has met before, however many there were since."""

import pytest

from tfds_builders import seen
from tfds_builders.seen import Mark, Seen


@pytest.mark.parametrize("recent", [1, 3, 1000])
def test_a_signal_is_known_again(monkeypatch, recent):
    monkeypatch.setattr(seen, "RECENT", recent)
    met = Seen()
    top = (1 << 64) - 1
    for i in range(50):
        split = "train" if i < 40 else "test"
        assert met.again(split, [Mark(f"r{i}", top - 7919 * i, 5)]) == ""
    for i in (0, 17, 39):
        own = Mark("new", top - 7919 * i, 5)
        assert met.again("train", [own]) == ""  # the same labels, in the same split
        leak = f"has the signal of record r{i} in split train: a leak"
        assert met.again("test", [own]) == leak
        other = f"has the signal of record r{i}, and other labels"
        assert met.again("train", [own._replace(labels=6)]) == other
    assert "in split test" in met.again("train", [Mark("new", top - 7919 * 45, 5)])


def test_two_of_one_job():
    met = Seen()
    assert met.again("train", [Mark("a", 1, 5), Mark("b", 1, 5)]) == ""
    assert met.again("train", [Mark("c", 2, 5), Mark("d", 2, 6)]) == (
        "has the signal of record c, and other labels"
    )
    assert met.again("test", [Mark("e", 2, 6)]) == ""  # none of the refused job was taken
