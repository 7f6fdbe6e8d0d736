"""The mutation campaign, a short one; `--mutations 10000` has the long one."""

import pytest

from campaign.mutation_campaign import Campaign, judged, table
from campaign.mutations import OF_JSON, Mutation
from campaign.reader import Reader, anything, nothing
from ecg_jax.errors import UserError
from tfds_builders.build import BadRecordsError


def test_nothing_is_silently_wrong(request, tmp_path):
    campaign = Campaign(tmp_path)
    outcomes = [campaign.run(n) for n in range(request.config.getoption("--mutations"))]
    print(table(outcomes))
    assert not [outcome for outcome in outcomes if outcome.what.startswith("finding")]
    assert {outcome.what for outcome in outcomes} == {"refused", "equal", "as said"}


def of_one_record(_):
    return 1, lambda item: item.endswith("/ecg")


def raising(error):
    def read(_):
        raise error

    return read


@pytest.mark.parametrize(
    ("read", "free", "what"),
    [
        (lambda _: {"1/ecg": "a"}, nothing, "equal"),
        (lambda _: {"1/ecg": "b"}, nothing, "finding: differs"),
        (lambda _: {"1/ecg": "b"}, of_one_record, "as said"),
        (lambda _: {"1/ecg": "b", "2/ecg": "b"}, of_one_record, "finding: differs in more"),
        (lambda _: {"1/ecg": "a", "2/split": "b"}, of_one_record, "finding: differs"),
        (lambda _: {}, anything, "as said"),
        (lambda _: {}, nothing, "finding: differs"),
        (raising(UserError("x: is damaged")), nothing, "refused"),
        (raising(UserError("x: is\ndamaged")), anything, "finding: not one line"),
        (raising(UserError("")), anything, "finding: not one line"),
        (raising(BadRecordsError({"1": "why", "2": "why"}, 3)), nothing, "refused"),
        (raising(BadRecordsError({"1": "why\nnot"}, 3)), nothing, "finding: lines"),
        (raising(KeyError("x")), anything, "finding: traceback"),
    ],
)
def test_what_is_a_finding(read, free, what, tmp_path):
    reader = Reader("mine", lambda _: None, read, free)
    mutation = Mutation("flip a bit", ("x",), 1)
    assert judged(reader, tmp_path, mutation, {"1/ecg": "a"})[0] == what


def test_a_number_says_what_is_mutated(tmp_path):
    """On any machine, and whatever was tried before."""
    one, other = Campaign(tmp_path / "a"), Campaign(tmp_path / "b")
    for campaign in (one, other):
        campaign._folder.mkdir()
    number = next(i for i, reader in enumerate(one._turns) if reader.name == "a run's config")
    first = one.run(number)
    one.run(number + len(one._turns))
    assert one.run(number) == first == other.run(number)
    assert OF_JSON.keys() > {"another value", "drop a value"}
