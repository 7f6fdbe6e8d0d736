"""Pictures are kept beside a run's predictions: by dataset, task and checkpoint."""

import dataclasses

import numpy as np
import pytest

from ecg_jax.errors import UserError
from ecg_jax.report import Content, Embedding, PromptMap, Sample, fill, picture_file, render

ECG = np.arange(1200, dtype=np.int16).reshape(100, 12)


def pictures(dataset: str, task: str) -> list[picture_file.Picture]:
    similarity = np.array([[0.1, np.nan]])
    scores = [("MI", 0.25), ("CD", float("nan"))]
    leads = np.arange(12) != 3
    return [
        PromptMap(dataset, task, ["MI", "CD"], ["a wording"], ["MI"], similarity, "a note"),
        Embedding(dataset, task, np.ones((2, 2)), np.array([-1, 0]), ["MI", "CD"]),
        Sample(dataset, task, "best", "r1", ECG, 100, leads, "µV", ["MI"], "zero_shot", scores),
    ]


def same(a: picture_file.Picture, b: picture_file.Picture) -> bool:
    np.testing.assert_equal(dataclasses.asdict(a), dataclasses.asdict(b))
    return type(a) is type(b)


def test_pictures_of_a_checkpoint_are_kept_by_dataset_and_task(tmp_path):
    path = tmp_path / "pictures.npz"
    assert picture_file.read(path, 7) == []
    first, second = pictures("ptb_xl", "super"), pictures("mit_bih", "aami")
    picture_file.update(path, 7, first)
    picture_file.update(path, 7, second)
    kept = picture_file.read(path, 7)
    assert len(kept) == 6 and all(map(same, kept, [*first, *second]))
    assert kept[2].ecg.dtype == np.int16 and kept[2].lead_mask.dtype == bool
    picture_file.update(path, 7, first[1:])
    assert [type(p).__name__ for p in picture_file.read(path, 7)[3:]] == ["Embedding", "Sample"]
    assert len(picture_file.read(path, 7)) == 5
    assert picture_file.read(path, 8) == []
    picture_file.update(path, 8, second)
    assert len(picture_file.read(path, 8)) == 3


def test_a_damaged_file_is_one_line(tmp_path):
    path = tmp_path / "pictures.npz"
    picture_file.update(path, 7, pictures("ptb_xl", "super"))
    whole = path.read_bytes()
    for at in range(0, len(whole), 97):
        path.write_bytes(whole[:at])
        with pytest.raises(UserError, match=r"pictures.npz is damaged .*: remove it and evaluate"):
            picture_file.read(path, 7)
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        try:  # a byte that is nobody's does no harm
            assert len(picture_file.read(path, 7)) == 3
        except UserError as error:
            assert "\n" not in str(error)


def test_pictures_of_several_tasks_are_named():
    given = [*pictures("ptb_xl", "super"), *pictures("mit_bih", "aami")]
    kinds = {PromptMap: [], Embedding: [], Sample: []}
    for picture in given:
        kinds[type(picture)].append(picture)
    prompts, embeddings, samples = kinds.values()
    sentence = "Of the run etp_0 (seed 0)."
    pictured = dict(prompts=prompts, embeddings=embeddings, samples=samples)
    html = render(Content("Two", drawn=sentence, **pictured))
    for name in ("ptb_xl super", "mit_bih aami"):
        assert f"<summary>{name}: a note</summary>" in html
        assert f"<summary>{name}</summary>" in html
        assert f"<h3>Best cases of {name}</h3>" in html
    assert html.count(f"<p>{sentence}</p>") == 3
    assert ">top classes<" in html and ">zero-shot score<" in html


def test_tasks_stand_in_the_projects_order():
    names = [("ptb_xl", "super"), ("ptb_xl", "rhythm"), ("ptb_xl", "reports"), ("mit_bih", "aami")]
    assert sorted(reversed(names), key=lambda name: fill.task_place(*name)) == names
