"""The audit as a whole: leaks end with 3, nothing names a patient, real radiographs give what their README lists."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from monai_simclr.audit import run_audit
from monai_simclr.cli.app import app
from monai_simclr.data import check_index, open_index, write_index
from monai_simclr.data.findings import NIH14
from monai_simclr.data.index import coerce_index
from monai_simclr.data.phantoms import write_dicom_phantoms, write_nih_phantoms


def _archive(folder, splits=("train", "train", "test", "test"), patients=("p-anna", "p-bert", "p-carl", "p-dora")):
    generator = np.random.default_rng(0)
    for number in range(len(splits)):
        Image.fromarray(generator.integers(0, 256, (64, 64), dtype=np.uint8)).save(folder / f"anna{number}.png")
    index = pd.DataFrame(
        {
            "image": [str(folder / f"anna{n}.png") for n in range(len(splits))],
            "patient_id": patients,
            "study_id": "",
            "view_position": "PA",
            "sex": "F",
            "age": 50.0,
            "split": splits,
            "Mass": [1.0, 0, 0, 1],
        }
    )
    write_index(coerce_index(index), folder / "index.csv")
    return folder


def test_a_valid_archive_has_no_leak_and_exit_code_0(tmp_path):
    done = CliRunner().invoke(app, ["audit", str(_archive(tmp_path)), "-o", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    content = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert content["leaks"]["messages"] == []
    assert content["images"] == 4


def test_a_patient_in_two_splits_is_a_leak_with_exit_code_3(tmp_path):
    folder = _archive(tmp_path, patients=("p-anna", "p-bert", "p-anna", "p-dora"))
    done = CliRunner().invoke(app, ["audit", str(folder / "index.csv"), "-o", str(tmp_path / "out")])
    assert done.exit_code == 3
    assert "LEAK: patients in more than one split: 1" in done.output
    content = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert content["leaks"]["first"] == [{"rows": [0, 2], "splits": ["test", "train"]}]


def test_the_same_file_in_two_splits_is_a_leak(tmp_path):
    folder = _archive(tmp_path)
    (folder / "anna3.png").write_bytes((folder / "anna0.png").read_bytes())
    found = run_audit(folder, tmp_path / "out", workers=0)
    assert found.leaks == ["files in more than one split: 1"]


def test_the_same_picture_in_two_splits_is_a_leak_when_pixels_are_read(tmp_path):
    folder = _archive(tmp_path)
    big = Image.open(folder / "anna0.png").resize((256, 256), Image.Resampling.BICUBIC)
    big.save(folder / "anna3.png")
    assert run_audit(folder, tmp_path / "out", workers=0).leaks == []
    found = run_audit(folder, tmp_path / "out", pixels=True, workers=0)
    assert found.leaks == ["pictures in more than one split: 1"]


def test_the_page_lists_a_pair_once_findings_by_split_and_those_that_nobody_has_in_a_line(tmp_path):
    folder = _archive(tmp_path)
    (folder / "anna3.png").write_bytes((folder / "anna0.png").read_bytes())
    table = pd.read_csv(folder / "index.csv").assign(Edema=0.0)
    table.to_csv(folder / "index.csv", index=False)
    page = run_audit(folder, tmp_path / "out", pixels=True, workers=0).page.read_text(encoding="utf-8")
    assert page.count("across patients, across splits") == 1
    head = "".join(f'<th scope="col">{name}</th>' for name in ("finding", "train", "test"))
    assert f"<tr>{head}</tr>" in page
    assert "<td>Mass</td><td>1 of 2 (50.0%), 1 patient</td><td>1 of 2 (50.0%), 1 patient</td>" in page
    assert "No image has: Edema." in page


def test_facts_of_a_header_that_need_nothing_done_are_folded(tmp_path):
    write_dicom_phantoms(tmp_path / "dicom", n_patients=4, size=64)
    found = _Verdict(run_audit(tmp_path / "dicom", tmp_path / "out", workers=0).page)
    assert "MONOCHROME1: stored with dense tissue dark (nothing to do: our reader inverts them, once)" in found.folded
    assert not any("MONOCHROME1" in check for check in found.checks)


def test_nothing_that_is_written_names_a_patient_or_a_path(tmp_path):
    folder = _archive(tmp_path, patients=("p-anna", "p-bert", "p-anna", "p-dora"))
    run_audit(folder, tmp_path / "out", pixels=True, workers=0)
    for path in (tmp_path / "out").iterdir():
        assert not re.search(r"anna|bert|dora|/tmp", path.read_text(encoding="utf-8")), path.name


def test_the_page_needs_no_network_and_no_script_and_escapes_text(tmp_path):
    folder = _archive(tmp_path)
    table = (folder / "index.csv").read_text().replace("Mass", "<script>alert(1)</script>")
    (folder / "index.csv").write_text(table)
    page = run_audit(folder, tmp_path / "out", workers=0).page.read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(1)" in page
    assert not re.search(r"<script|https?://|src=\"(?!data:)|@import", page)


def test_pictures_are_on_the_page_only_on_request_and_with_a_notice(tmp_path):
    folder = _archive(tmp_path)
    without = run_audit(folder, tmp_path / "out", pixels=True, workers=0).page.read_text()
    pictured = run_audit(folder, tmp_path / "out", pixels=True, workers=0, pictures=True).page.read_text()
    assert "This page holds pictures of patients: treat it as patient data." in pictured
    assert "data:image" not in without
    assert "data:image/png;base64" in pictured
    assert "treat it as patient data" in pictured
    with pytest.raises(ValueError, match="pictures are made of pixels; add --pixels"):
        run_audit(folder, tmp_path / "out", pictures=True)


class _Verdict(HTMLParser):
    """The classes of the verdict, its text, and the texts of checks and of folded parts."""

    def __init__(self, page):
        super().__init__()
        self.classes, self.text, self.folded, self.checks, self.within = [], "", "", [], []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        name = dict(attrs).get("class", "") or ""
        if "verdict" in name.split():
            self.classes = name.split()
            tag = "verdict"
        if tag in ("verdict", "details", "article"):
            self.within.append(tag)
            self.checks += [""] if tag == "article" else []

    def handle_endtag(self, tag):
        if self.within and (tag == self.within[-1] or (tag == "p" and self.within[-1] == "verdict")):
            self.within.pop()

    def handle_data(self, data):
        self.text += data * ("verdict" in self.within)
        self.folded += data * ("details" in self.within)
        if "article" in self.within:
            self.checks[-1] += data + " "


def test_without_splits_no_verdict_is_given_on_leaks_between_them(tmp_path):
    found = _Verdict(run_audit(_archive(tmp_path, splits=[""] * 4), tmp_path / "out", workers=0).page)
    assert found.classes == ["verdict"]
    assert "has no splits" in found.text
    again = _Verdict(run_audit(_archive(tmp_path), tmp_path / "out", workers=0).page)
    assert again.classes == ["verdict", "good"]
    assert "No leak between splits was found" in again.text


def test_checks_that_found_nothing_are_folded_and_the_others_are_not(tmp_path):
    folder = _archive(tmp_path)
    (folder / "anna2.png").unlink()
    found = _Verdict(run_audit(folder, tmp_path / "out", workers=0).page)
    assert any("missing" in check and "row 2 " in check for check in found.checks)
    assert "checks found nothing" in found.folded
    assert "FOR PROCESSING" in found.folded
    assert not any("FOR PROCESSING" in check for check in found.checks)


def test_files_are_named_on_the_page_only_on_request_and_never_in_the_tables(tmp_path):
    folder = _archive(tmp_path)
    (folder / "anna3.png").write_bytes((folder / "anna0.png").read_bytes())
    command = ["audit", str(folder), "-o", str(tmp_path / "out"), "--workers", "0"]
    CliRunner().invoke(app, command)
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "anna" not in page
    assert "row 0" in page
    CliRunner().invoke(app, [*command, "--names", "--pixels", "--pictures"])
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "names of files, which may name patients: treat it as patient data" in page
    pictures = re.findall(r'<img src="data:image/png;base64,[^"]+" alt="(anna\d\.png) \(row (\d)\)">', page)
    assert {("anna0.png", "0"), ("anna3.png", "3")} <= set(pictures)
    for name in ("audit.json", "images.csv"):
        assert "anna" not in (tmp_path / "out" / name).read_text(encoding="utf-8")


def test_missing_images_are_counted_and_do_not_end_the_audit(tmp_path):
    folder = _archive(tmp_path)
    (folder / "anna2.png").unlink()
    content = run_audit(folder, tmp_path / "out", pixels=True, workers=0).content
    assert content["flags"]["unreadable"]["rows"] == [2]
    assert content["files"]["problem"] == {"(none)": 3, "the file is missing": 1}


def test_options_of_the_source_reach_the_audit(tmp_path):
    for name in ("train/NORMAL/person1_a.png", "test/PNEUMONIA/person1_b.png"):
        (tmp_path / "a" / name).parent.mkdir(parents=True)
        Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(tmp_path / "a" / name)
    command = ["audit", str(tmp_path / "a"), "-o", str(tmp_path / "out"), "-O", r"patient_pattern=(person\d+)_"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 3
    assert "patients in more than one split: 1; files in more than one split" in done.output


def test_a_missing_archive_ends_with_a_message_and_exit_code_3(tmp_path):
    command = [sys.executable, "-m", "monai_simclr", "audit", str(tmp_path / "none")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 3
    assert "there is no folder" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_index_command_writes_what_the_audit_reads(tmp_path):
    archive = write_nih_phantoms(tmp_path / "nih", n_patients=12, size=64, seed=0)
    done = CliRunner().invoke(app, ["index", str(archive), "-o", str(tmp_path / "index.csv"), "-O", "views=PA"])
    assert done.exit_code == 0, done.output
    table = pd.read_csv(tmp_path / "index.csv", dtype=str)
    assert set(table["view_position"]) == {"PA"}
    assert run_audit(tmp_path / "index.csv", tmp_path / "out").content["images"] == len(table)


def _all_sets(cxr, path):
    """One index of every set of the pack but the masks, from its manifest."""
    rows = []
    for row in csv.DictReader((cxr / "manifest.csv").open(encoding="utf-8")):
        if row["dataset"].endswith("_mask"):
            continue
        nih, said = row["dataset"].startswith("nih"), set(row["labels"].split("|"))
        labels = {name: float(name in said) if nih else np.nan for name in NIH14}
        if row["dataset"].startswith("kermany"):
            labels["Pneumonia"] = float("PNEUMONIA" in said)
        split = {"train_val": "train"}.get(row["official_split"], row["official_split"])
        rows.append(
            {
                "image": str(cxr / row["path"]),
                "patient_id": row["patient_id"] or row["path"],
                "study_id": "",
                "view_position": row["view"],
                "sex": row["sex"],
                "age": row["age"],
                "split": split,
                "source": f"{row['dataset']} {row['source']}",
                **labels,
            }
        )
    index = coerce_index(pd.DataFrame(rows))
    write_index(index, path)
    return index


@pytest.fixture(scope="module")
def real(cxr, tmp_path_factory):
    folder = tmp_path_factory.mktemp("real")
    index = _all_sets(cxr, folder / "index.csv")
    return index, run_audit(folder / "index.csv", folder / "out", pixels=True, workers=0).content


def _rows(index, *names):
    names_of = index["image"].str.rsplit("/", n=1).str[1]
    return [int(np.flatnonzero(names_of == name)[0]) for name in names]


@pytest.mark.slow
def test_the_file_size_predicts_pneumonia_in_one_nih_source_only(real):
    _, content = real
    sizes = {
        row["within"]: row["auroc"]
        for row in content["confounders"]
        if (row["finding"], row["nuisance"]) == ("Pneumonia", "bytes")
    }
    assert sizes["nih muhammedtalo/COVID-19"] > 0.78
    assert sizes["nih austinauyeung/covid-classifier"] < 0.6
    assert sizes["kermany szallik/Neural_networks_binary_classification"] > 0.85


@pytest.mark.slow
def test_every_near_duplicate_that_the_pack_lists_is_found(real, cxr):
    index, content = real
    table = list(csv.DictReader((cxr / "kermany" / "labels.csv").open(encoding="utf-8")))
    pairs = {
        frozenset([row["file"].rsplit("/", 1)[1], row["near_duplicates"]]) for row in table if row["near_duplicates"]
    }
    groups = [set(group["rows"]) for group in content["duplicates"]["same_look"]["first"]]
    assert len(pairs) == 10
    kermany = index["image"].str.contains("/kermany/images/")
    for one, other in map(sorted, pairs):
        both = {int(np.flatnonzero(kermany & index["image"].str.endswith("/" + name))[0]) for name in (one, other)}
        found = content["duplicates"]["same_look"]["groups"] > len(groups) or any(both <= group for group in groups)
        assert found, (one, other)


@pytest.mark.slow
def test_the_tibia_among_the_chests_is_found_by_its_header_and_by_its_look(real):
    index, content = real
    [tibia] = _rows(index, "RG3_J2KI.dcm")
    assert content["flags"]["not_a_chest"]["rows"] == [tibia]
    assert tibia in content["flags"]["unlike_a_chest"]["rows"]
    assert content["flags"]["unlike_a_chest"]["count"] < 20


@pytest.mark.slow
def test_monochrome1_files_and_the_file_without_a_header_are_found(real):
    index, content = real
    wanted = _rows(index, "RG1_J2KI.dcm", "RG3_J2KI.dcm", "derived_RG1_half_uncompressed.dcm")
    assert content["flags"]["monochrome1"]["rows"] == sorted(wanted)
    assert content["flags"]["unreadable"]["rows"] == _rows(index, "CR-MONO1-10-chest.dcm")


@pytest.mark.slow
def test_kermanys_own_split_leaks_patients(real):
    assert "patients in more than one split" in real[1]["leaks"]["messages"][0]


@pytest.mark.slow
def test_frontal_scores_separate_chests_from_inverted_chests(cxr):
    """Held-out NIH, and archives that the mean chest was not made of."""
    from monai_simclr.audit.scan import pixel_facts

    rows = csv.DictReader((cxr / "manifest.csv").open(encoding="utf-8"))
    sets = {("kermany", "train"), ("kermany", "test"), ("hannover", ""), ("nih", "test")}
    paths = [cxr / row["path"] for row in rows if (row["dataset"], row["official_split"]) in sets]
    assert len(paths) > 1800
    scores = np.array([pixel_facts(path)["frontal"] for path in paths[::4]])
    assert (scores < 0.15).mean() < 0.01
    assert (-scores < -0.3).mean() > 0.98


def test_an_index_with_a_leak_cannot_be_opened_for_training(tmp_path):
    with pytest.raises(ValueError, match="1 patients are in more than one split"):
        check_index(
            pd.read_csv(_archive(tmp_path, patients=("a", "b", "a", "d")) / "index.csv", dtype=str).assign(age=1)
        )


def test_names_that_are_not_utf8_do_not_end_an_audit(tmp_path):
    tree = write_dicom_phantoms(tmp_path / "in", n_patients=3, size=64)
    files = sorted(tree.rglob("*.dcm"))
    os.rename(files[0], os.fsencode(files[0].parent) + b"/M\xfc\nller.dcm")
    os.rename(tree, os.fsencode(tmp_path) + b"/i\xfcn")
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/i\xfcn")
    found = run_audit(folder, tmp_path / "out", pixels=True, pictures=True, workers=0)
    assert found.content["images"] == len(files)
    for name in ("index.html", "audit.json", "images.csv"):
        assert "\\udc" not in (tmp_path / "out" / name).read_text("utf-8")
    table = write_index(open_index(folder), tmp_path / "i\udcfcndex.csv")
    content = run_audit(table, tmp_path / "again", workers=0).content
    assert content["images"] == len(files)
    assert content["files"]["problem"] == {"(none)": len(files)}
