"""Report cleaning and the glossary, sentence by sentence and on the real reports."""

import csv
import re

import numpy as np
import pytest

from ecg_jax.errors import UserError
from ecg_jax.text import reports


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        ("sinus rhythm. normal ecg. Edit: NORM 100, (NORM 100)", "sinus rhythm. normal ecg."),
        ("trace only requested. Edit: IMI 15, ISC 19,3, EKG:sehr frischer IMI(IMI 50)", ""),
        (
            "sinusrytm hÖg lateral infarkt bÖr ÖvervÄgasconsensus label derived from: "
            "{'NDT': 100.0},{'NORM': 50.0}",
            "sinusrytm hög lateral infarkt bör övervägas",
        ),
        ("normales ekg 4.46                          unbestÄtigter bericht", "normales ekg"),
        ("normales ekg 4.46              unbestÄtigter ber", "normales ekg"),
        ("oder linksbelastung 4.46          unbest", "oder linksbelastung"),
        ("oder linksbelastung 4.4", "oder linksbelastung"),
        ("normales ekg unbestÄtigter bericht", "normales ekg"),
        (
            "infarkt     alter unbest. 4.46        unbestÄtigter bericht Edit: IMI 15, ",
            "infarkt alter unbest.",
        ),
        ("Unconfirmed report. Normal ECG", "Normal ECG"),
        ("trace only requested.", ""),
        ("sinusrytm     !", "sinusrytm"),
        ("", ""),
        ("  \n ", ""),
    ],
)
def test_boilerplate_and_labels_are_stripped(report, expected):
    assert reports.clean(report) == expected


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        ("anteriore ischÄmie", "anteriore ischämie"),
        ("Überdrehter linkstyp", "überdrehter linkstyp"),
        ("amplitudenkriterien f#r r-s #bergang", "amplitudenkriterien für r-s übergang"),
        ("fÃ¼r ischÃ¤mie fÃ¶rmak Ã„nderung grÃŸe", "für ischämie förmak änderung grße"),
        ("schweiáausbruch", "schweißausbruch"),
        ("lead #1 and #V2, f#r", "lead #1 and #V2, für"),
        ("ritmo sinusal, más rápido", "ritmo sinusal, más rápido"),
        ("aumentó la frecuencia", "aumentó la frecuencia"),
        ("sinus\u200b rhythm\ufeff", "sinus rhythm"),
        ("nan", ""),
        (" NaN ", ""),
        ("...", ""),
        ("- ? 12", ""),
        ("\u200b\u200b", ""),
        ("#NAME?", ""),
        ("#N/A", ""),
        ("sinusrytm     ó¿             ó¬ st-t", "sinusrytm st-t"),
        ("SINUSRHYTHMUS  NORMALES EKG", "sinusrhythmus normales ekg"),
        ("Sinus rhythm.  Normal ECG.", "Sinus rhythm. Normal ECG."),
    ],
)
def test_characters_and_case(report, expected):
    assert reports.clean(report) == expected


GERMAN = [
    ("sinusrhythmus lagetyp normal normales ekg", "sinus rhythm. normal axis. normal ecg."),
    ("sinusbradykardie sonst normales ekg", "sinus bradycardia. otherwise normal ecg."),
    ("sinusrhythmus linkstyp", "sinus rhythm. leftward axis."),
    ("ueberdrehter linkstyp", "left axis deviation."),
    ("Überdrehter linkstyp", "left axis deviation."),
    ("extrem ueberdrehter rechtstyp", "extreme right axis deviation."),
    (
        "qrs(t) abnorm    anteroseptaler infarkt     wahrscheinlich alt",
        "abnormal qrs(t) pattern. anteroseptal infarct, probably old.",
    ),
    ("hochlateraler infarkt mÖglich", "possible high lateral infarct."),
    (
        "inferiorer myokardschaden nicht auszuschliessen",
        "inferior myocardial damage cannot be excluded.",
    ),
    (
        "st & t abnorm, wahrscheinlich    laterale ischÄmie oder linksbelastung",
        "st & t abnormality, probably lateral ischemia or left ventricular strain.",
    ),
    (
        "t abnorm in anterioren ableitungen    lateralen ableitungen qt-verlÄngerung",
        "t wave abnormality in anterior leads, lateral leads. prolonged qt interval.",
    ),
    ("verdacht auf p-sinistrocardiale", "suspected left atrial enlargement."),
    ("unvollstÄndiger rechtsschenkelblock", "incomplete right bundle branch block."),
    ("kein rechtsschenkelblock", "no right bundle branch block."),
    (
        "regelmÄssiger rhythmus, keine p-welle erkannt",
        "regular rhythm, no p wave detected.",
    ),
    ("tachykardes vorhofflimmern", "atrial fibrillation with rapid ventricular response."),
    ("kein vorhofflimmern mehr", "atrial fibrillation no longer present."),
    ("ventrikulÄre extrasystole(n), bigeminus", "ventricular premature complexes, bigeminy."),
    (
        "st-hebung in v1-3 t neg in iii, flach in v1 normales ekg",
        "st elevation in v1-3. t wave inversion in iii, flat in v1. normal ecg.",
    ),
    ("keine st-senkung", "no st depression."),
    ("unspezifisches abnormales t", "non-specific t wave abnormality."),
    ("v.a. inferioren infarkt", "suspected inferior infarct."),
    ("z.n. anteriorem infarkt", "status post anterior infarct."),
    ("q in iii (nicht signifikant) pathologisches ekg", None),
    ("t- veraenderungen in ii", "t wave changes in ii"),
    ("a-v block i", "first degree av block."),
]
SWEDISH = [
    ("sinusrytm eljest normalt ekg", "sinus rhythm. otherwise normal ecg."),
    ("vÄnster el-axel inget sÄkert patologiskt", "leftward axis. no definite pathology."),
    (
        "avvikande qrs(t) fÖrlopp    inferior infarkt    Ålder ej bestÄmmbar",
        "abnormal qrs(t) pattern. inferior infarct, age undetermined.",
    ),
    ("lateral myokardskada kan ej uteslutas", "lateral myocardial damage cannot be excluded."),
    (
        "st-t sÄnkning, sÅsom vid    lateral ischemi eller vÄnster belastning",
        "st-t depression, consistent with lateral ischemia or left ventricular strain.",
    ),
    ("regelbunden rytm, inga p-vÅg funna", "regular rhythm, no p wave detected."),
    ("hÖgersidigt skÄnkelblock", "right bundle branch block."),
]


@pytest.mark.parametrize(("report", "expected"), GERMAN + SWEDISH)
def test_rendering(report, expected):
    expected = expected or "q wave in iii (not significant). abnormal ecg."
    assert reports.to_english(report) == expected


@pytest.mark.parametrize(
    "report",
    [
        "sinus rhythm. t waves are low or flat in i, avl, v5,6. no ecg evidence of lvh.",
        "sinus rhythm. compared with tracing of 8:4:92, t waves are now inverted in v4,5,6.",
        "rapid, regular supraventricular tachycardia. this may be atrial flutter.",
        "Sinus rhythm. Normal ECG.",
        "possible inferior infarct, age undetermined",
    ],
)
def test_english_is_left_alone(report):
    assert reports.to_english(report) == report


def test_the_longest_phrase_wins():
    """ "sonst normales ekg" is not "normales ekg", "nicht auszuschliessen" not "nicht"."""
    assert reports.to_english("sonst normales ekg") == "otherwise normal ecg."
    pieces = reports.translate("anteriorer infarkt nicht auszuschliessen")
    assert [piece.kind for piece in pieces] == ["statement"]


def test_words_inside_words_are_not_touched():
    assert reports.to_english("reinfarkt xsinusrhythmus") == "reinfarkt xsinusrhythmus"


@pytest.mark.parametrize("negation", ["kein", "keine", "nicht", "ohne", "ej", "inte", "inga"])
def test_no_negation_is_lost(negation):
    english = reports.to_english(f"{negation} zzz")
    assert english in ("no zzz", "not zzz", "without zzz")


def test_negated_phrases_stay_negated():
    """Every glossary phrase with a negation has an English side that says so."""
    negative = re.compile(r"\b(kein\w*|nicht|ohne|ej|inte|inga|inget|ingen|un\w*wahrsch\w*)\b")
    denied = re.compile(r"\b(no|not|cannot|without|undetermined|difficult|non|unlikely|absent)\b")
    found = {
        " ".join(key): english
        for key, (_, english) in reports.load_glossary().items()
        if negative.search(" ".join(key))
    }
    assert len(found) > 50
    assert [key for key, english in found.items() if not denied.search(english)] == []


def test_glossary_rows_are_sound():
    seen = {}
    for language, kind, phrases, english in reports._glossary_rows():
        assert language in ("de", "sv", "where")
        assert ("{where}" in english) <= all("{where}" in phrase for phrase in phrases)
        assert english.isascii(), english
        for phrase in phrases:
            assert seen.setdefault(phrase, (kind, english)) == (kind, english), phrase
            assert phrase == phrase.strip().lower(), phrase


def test_damaged_glossary_row(monkeypatch):
    monkeypatch.setattr(reports, "_read_lines", lambda path: ["# note", "de\twords\tekg"])
    with pytest.raises(UserError, match=r"glossary\.tsv, line 2"):
        list(reports._glossary_rows())


def test_a_report_is_rendered_once(monkeypatch):
    asked = []
    monkeypatch.setattr(reports, "to_english", lambda text: asked.append(text) or text)
    assert [reports.render("ein Bericht, nur hier") for _ in range(3)][2] == asked[0]
    assert len(asked) == 1


def test_render():
    report = "sinusrhythmus 4.46     unbestÄtigter bericht"
    assert reports.render(report, "original") == "sinusrhythmus"
    assert reports.render(report) == "sinus rhythm."
    with pytest.raises(UserError, match="english, original"):
        reports.render(report, "german")


def test_coverage_counts_words_that_stay_foreign():
    share, missing = reports.coverage(["sinusrhythmus blablabla qrs in v1", "normal ecg"])
    assert share == pytest.approx(5 / 6)
    assert missing == {"blablabla": 1}
    assert reports.coverage([""]) == (1.0, {})


def test_an_empty_glossary_covers_little(monkeypatch):
    monkeypatch.setattr(reports, "_glossary_rows", lambda: iter([("de", "words", ["x"], "y")]))
    cached = (reports.load_glossary, reports._longest_phrases, reports.english_vocabulary)
    for function in cached:
        function.cache_clear()
    try:
        share, _ = reports.coverage(["sinusrhythmus lagetyp normal sonst normales ekg"])
    finally:
        for function in cached:
            function.cache_clear()
    assert share == pytest.approx(1 / 6)


def test_command(tmp_path, monkeypatch, capsys):
    table = tmp_path / "reports.csv"
    table.write_text('ecg_id,report\n1,sinusrhythmus blub\n2,""\n3,trace only requested.\n')
    monkeypatch.setattr("sys.argv", ["reports", str(table)])
    reports.main()
    printed = capsys.readouterr().out
    assert "3 reports, 2 distinct after cleaning" in printed
    assert "1 empty as published, 2 after cleaning" in printed
    assert "50.00% of words come out as English" in printed
    assert "blub (1)" in printed


@pytest.mark.parametrize(("content", "words"), [(None, "no such file"), ("a,b\n1,2\n", "column")])
def test_command_on_another_file(tmp_path, monkeypatch, content, words):
    table = tmp_path / "x.csv"
    if content:
        table.write_text(content)
    monkeypatch.setattr("sys.argv", ["reports", str(table)])
    with pytest.raises(UserError, match=words):
        reports.main()


def test_simulated_reports_are_covered():
    from tfds_builders.simulated.findings import CODES, RHYTHMS
    from tfds_builders.simulated.reports import report

    rng = np.random.default_rng(0)
    findings = [{"SR", code} for code in CODES if code not in RHYTHMS]
    findings += [{code} for code in CODES if code in RHYTHMS]
    texts = [report(rng, found) for found in findings for _ in range(20)]
    assert any("ekg" in text or "sinusrhythmus" in text for text in texts)
    share, missing = reports.coverage(texts)
    assert share == 1.0, missing


# Telling letters and word parts of German and Swedish, independent of the glossary's vocabulary.
FOREIGN = re.compile(
    r"[äöüåß]|(rhythmus|rytm|kardie|kardi|infarkt|typ|ung|ungen|ig|isch|ischer|lich|ekg|axel)\b"
)


@pytest.mark.real_data
def test_real_reports(real_data):
    with (real_data / "ptb-xl" / "ptbxl_database.csv").open(encoding="utf-8") as file:
        published = [row["report"] for row in csv.DictReader(file)]
    assert len(published) == 2801
    share, missing = reports.coverage(published)
    print(f"coverage {share:.4f}, {len(missing)} words missing")
    assert share >= 0.98
    english = [reports.to_english(report) for report in published]
    assert sum(not report.strip() for report in published) == 1
    assert sum(not text for text in english) == 56
    leak = re.compile(r"edit:|consensus|unbest|4\.46|\bNORM\b|\d00\.0|trace only", re.IGNORECASE)
    assert [text for text in english if leak.search(text)] == []
    words = re.findall(r"[^\W\d_]+", " ".join(english))
    foreign = [word for word in words if FOREIGN.search(word)]
    assert len(foreign) / len(words) < 0.001, foreign
