"""Two thousand damaged files by every entry point of the package: an image or our message, no hang, no crash."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from forked_script import run_forked
from radiograph_corpus import (
    SYNTAXES,
    picture,
    table_item,
    write_described,
    write_dicom,
    write_pictures,
    write_syntax,
)

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    write_pictures(folder)
    for syntax in SYNTAXES:
        write_syntax(folder / f"{syntax.keyword}.dcm", syntax)
    table = table_item(0, picture(12).ravel(), 12)
    write_dicom(folder / "tables.dcm", picture(12), ModalityLUTSequence=[table], VOILUTSequence=[table, table])
    write_dicom(
        folder / "windows.dcm",
        picture(12, signed=True),
        RescaleSlope=2,
        RescaleIntercept=5,
        WindowCenter=[9, 2000],
        WindowWidth=[9, 3000],
        VOILUTFunction="SIGMOID",
        PixelPaddingValue=-2048,
        PatientOrientation=["R", "F"],
        PhotometricInterpretation="MONOCHROME1",
        PixelSpacing=[0.1, 0.1],
    )
    for name in ("described", "more", "again"):
        write_described(folder / f"{name}.dcm")
    return folder


def fuzz(corpus, first, last):
    """Every damaged file's outcome; a file that ended the process is "wrong", and the next process continues."""
    results = {}
    stderr = ""
    while first < last:
        done = run_forked(HERE / "fuzz_reader.py", corpus.parent, str(corpus), str(first), str(last))
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        results |= {line["number"]: line for line in lines if "number" in line}
        stderr += done.stderr
        if done.returncode == 0:
            break
        started = [line["number"] for line in lines if "number" in line]
        assert started, f"the child did not start: {done.stderr[-2000:]}"
        first = started[-1] + 1
        results[started[-1]]["wrong"] = f"the process ended with {done.returncode}: {done.stderr[-1500:]}"
    return results, stderr, lines[-1].get("grown_mib", 0)


def check(results, stderr, grown, expected):
    wrong = [f"{line['number']} {line['what']}: {line['wrong']}" for line in results.values() if "wrong" in line]
    assert not wrong, f"{len(wrong)} of {len(results)}, the first:\n" + "\n".join(wrong[:3])
    assert len(results) == expected
    assert sum("image" in line for line in results.values()) > expected / 20
    assert sum("problem" in line for line in results.values()) > expected / 4
    # libtiff and libjpeg write a line to stderr where no Python can stop them; more than a line would be a crash
    assert "Traceback" not in stderr, stderr[-2000:]
    assert "Fatal" not in stderr, stderr[-2000:]
    assert grown < 1024


def test_150_damaged_files_end_in_an_image_or_a_message(corpus):
    check(*fuzz(corpus, 0, 150), 150)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_2000_damaged_files_end_in_an_image_or_a_message(corpus):
    check(*fuzz(corpus, 150, 2150), 2000)
