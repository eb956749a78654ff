"""The label-efficiency study: planned, run, resumed, refused and summarized, on phantoms."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from dask_cluster import DaskCluster
from typer.testing import CliRunner

from monai_simclr.cli.app import app
from monai_simclr.data import label_fraction, open_index
from monai_simclr.data.phantoms import write_nih_phantoms
from monai_simclr.data.pseudonyms import keyed_hash
from monai_simclr.networks import encoder, save_encoder
from monai_simclr.report import collect_runs, write_report
from monai_simclr.runtime.exit_codes import SettingError
from monai_simclr.runtime.locks import locked
from monai_simclr.runtime.metrics import read_metrics
from monai_simclr.runtime.spread import WorkerLostError
from monai_simclr.study import Study, run_study, runs, summarize
from monai_simclr.study.plan import PlannedRun
from monai_simclr.workflows.bundle import copy_bundle

FINDINGS = ["Cardiomegaly", "Effusion"]


def _encoder(folder, seen: list[str]) -> None:
    torch.manual_seed(0)
    hashes = json.dumps([keyed_hash("k", patient) for patient in seen])
    header = {"name": "resnet10", "width": "0.125", "patients_key": "k", "patients_seen": hashes}
    save_encoder(folder / "models" / "encoder.safetensors", encoder("resnet10", 0.125), header)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    write_nih_phantoms(folder / "phantoms", n_patients=60, size=64)
    copy_bundle(folder / "bundle", FINDINGS, size=32, encoder="resnet10", width=0.125)
    _encoder(folder / "bundle", [])
    return folder


def _study(workspace, name: str = "out", **settings) -> Study:
    given = {"fractions": (0.02, 0.5, 1.0), "draws": 2, "arms": ("scratch", "random_frozen", "frozen"), "iterations": 4}
    return Study(workspace / "bundle", workspace / "phantoms", workspace / name, **{**given, **settings})


@pytest.fixture(scope="module")
def done(workspace):
    study = _study(workspace)
    return study, read_metrics(run_study(study))


def test_the_summary_has_a_row_for_each_arm_and_fraction_and_names_skipped_fractions(done):
    study, metrics = done
    assert metrics["n"]["seen_patients"] == 0
    table = pd.read_csv(study.output_dir / "table.csv")
    macro = table[table["finding"] == "macro mean"]
    assert set(zip(macro["fraction"], macro["arm"], strict=True)) == {
        (f, arm) for f in (0.5, 1.0) for arm in study.arms
    }
    assert set(table["finding"]) == {"macro mean", *FINDINGS}
    assert macro["low"].isna().all(), "no finding has five positive test patients, so there is no interval"
    assert "without a positive" in metrics["values"]["not_run"]["2%"]
    assert set(metrics["values"]["label_saving"]) == {"random_frozen", "frozen"}
    assert (study.output_dir / "curve.png").read_bytes()[:4] == b"\x89PNG"
    assert "frozen" in set(macro.loc[macro["reference"] == "random_frozen", "arm"])


def test_the_summary_says_what_is_gained_where_labels_are_few_in_one_sentence_per_arm(workspace, capsys):
    study = _study(
        workspace, "few", fractions=(0.05, 0.1), draws=2, arms=("random_frozen", "frozen"), reference="random_frozen"
    )
    metrics = read_metrics(run_study(study))
    gain = pd.read_csv(study.output_dir / "few_label_gain.csv")
    assert gain["finding"].tolist() == ["macro mean", *FINDINGS]
    assert set(gain["fractions"]) == {"5, 10"}
    table = pd.read_csv(study.output_dir / "table.csv")
    macro = table[(table["finding"] == "macro mean") & (table["arm"] == "frozen")]
    assert gain["difference"][0] == pytest.approx(macro["difference"].mean())
    sentence = metrics["values"]["few_label_gain"][0]["sentence"]
    assert sentence.startswith("frozen minus random_frozen, macro mean, mean over 5, 10 % of the patients: ")
    assert sentence in capsys.readouterr().out
    page = write_report(study.output_dir / "report.html", title="few", notice="", data=collect_runs([study.output_dir]))
    assert f"<p>{sentence}.</p>" in page.read_text()
    once = read_metrics(
        summarize(
            _study(
                workspace,
                "few",
                fractions=(0.05, 0.1),
                draws=1,
                reference="random_frozen",
                arms=("random_frozen", "frozen"),
            ),
            40,
            {},
        )
    )
    reason = "no interval: fewer than 5 test patients have the finding, or lack it"
    assert once["values"]["few_label_gain"][0]["sentence"].endswith(reason)


def test_a_study_keeps_scores_and_no_models(done):
    assert not list(done[0].output_dir.rglob("model.pt"))
    assert len(list(done[0].output_dir.rglob("scores.npz"))) == 12


def test_a_killed_study_resumes_with_the_missing_run_and_gives_the_same_numbers(done, capsys):
    study, metrics = done
    lost = study.output_dir / "runs" / "scratch" / "50percent" / "draw1"
    before = np.load(lost / "scores.npz")["scores"]
    (lost / "settings.json").unlink()
    capsys.readouterr()
    again = read_metrics(run_study(study))
    assert re.findall(r"^run \d+ of 18: (.*), \d+ s$", capsys.readouterr().err, re.MULTILINE) == [
        "scratch, 50.00% of patients, draw 2"
    ]
    np.testing.assert_array_equal(np.load(lost / "scores.npz")["scores"], before)
    assert again["values"] == metrics["values"]


def test_other_settings_in_the_same_folder_are_refused(workspace, done):
    with pytest.raises(
        ValueError,
        match=r"has a run with other settings: iterations was 4, is [0-9]+; give this study its own folder",
    ):
        run_study(_study(workspace, iterations=5))


def test_a_run_with_other_labelled_patients_is_not_the_run_on_disk(done, monkeypatch):
    """A folder that was started with the draws of another version would mix them silently."""
    monkeypatch.setattr(runs, "label_fraction", lambda *given: label_fraction(*given)[1:])
    with pytest.raises(
        ValueError, match=r"has a run with other settings: labelled_sha256 was \w{64}, is \w{64}; give this study its"
    ):
        run_study(done[0])


def test_an_edited_config_of_the_bundle_is_another_study_and_the_setting_is_named(workspace, done):
    path = workspace / "bundle" / "configs" / "train.json"
    ours = path.read_text()
    path.write_text(ours.replace('"epoch_level": false', '"epoch_level": true'))
    try:
        with pytest.raises(ValueError, match=r"train#handlers#4#epoch_level was False, is True; give this study"):
            run_study(_study(workspace))
    finally:
        path.write_text(ours)


def _other_labels(archive, bundle) -> None:
    table = pd.read_csv(archive / "Data_Entry_2017_v2020.csv")
    table["Finding Labels"] = table["Finding Labels"].sample(frac=1.0, random_state=0).to_numpy()
    table.to_csv(archive / "Data_Entry_2017_v2020.csv", index=False)


def _other_pixels(archive, bundle) -> None:
    for path in sorted((archive / "images").glob("*.png")):
        picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), np.ascontiguousarray(picture[::-1]))


def _other_network(archive, bundle) -> None:
    path = bundle / "configs" / "metadata.json"
    metadata = json.loads(path.read_text())
    metadata["encoder"]["width"] = 0.25
    path.write_text(json.dumps(metadata))


@pytest.mark.parametrize("change", [_other_labels, _other_pixels, _other_network])
def test_embeddings_of_another_archive_or_network_are_computed_again(workspace, tmp_path, change, caplog):
    """In a folder whose complete runs are of another fraction, so that these do not tell."""
    bundle, archive = (shutil.copytree(workspace / name, tmp_path / name) for name in ("bundle", "phantoms"))
    settings = {"draws": 1, "arms": ("random_frozen",), "reference": "random_frozen"}
    run_study(Study(bundle, archive, tmp_path / "used", (0.5,), **settings))
    change(archive, bundle)
    shutil.rmtree(bundle / "cache")
    used, fresh = (Study(bundle, archive, tmp_path / name, (1.0,), **settings) for name in ("used", "fresh"))
    for study in (fresh, used):
        caplog.clear()
        run_study(study)
    assert "random0_32.npz has embeddings of another archive or network; they are computed again" in caplog.text
    ours, theirs = (np.load(next(used.runs()).folder(study.output_dir) / "scores.npz") for study in (used, fresh))
    for name in ("scores", "labels", "patients"):
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


def test_a_run_on_other_pixels_is_not_the_run_on_disk(workspace, tmp_path):
    bundle, archive = (shutil.copytree(workspace / name, tmp_path / name) for name in ("bundle", "phantoms"))
    study = Study(bundle, archive, tmp_path / "out", (1.0,), 1, ("random_frozen",), reference="random_frozen")
    run_study(study)
    _other_pixels(archive, bundle)
    shutil.rmtree(bundle / "cache")
    with pytest.raises(ValueError, match=r"has a run with other settings: pixels_sha256 was \w{64}, is \w{64}; give"):
        run_study(study)


def test_a_run_records_the_settings_that_its_arm_trains_with(workspace, done):
    """As the config that MONAI executed says, which is another source."""
    study = _study(workspace, "recorded", fractions=(1.0,), draws=1, arms=("scratch", "finetuned"), iterations=2)
    run_study(study)
    for arm, pretrained, rate in (("scratch", False, 0.001), ("finetuned", True, 0.0003)):
        folder = PlannedRun(arm, 1.0, 0).folder(study.output_dir)
        config = json.loads((folder / "settings.json").read_text())["settings"]["config"]
        executed = json.loads((folder / "config.json").read_text())
        assert (config["pretrained"], config["learning_rate"]) == (executed["pretrained"], rate)
        assert executed["pretrained"] is pretrained
        assert {"max_epochs", "val_interval", "label_fraction", "draw", "seed", "n_bootstrap"}.isdisjoint(config)


def test_a_changed_setting_of_one_arm_alone_is_another_study(workspace):
    path = workspace / "bundle" / "configs" / "train.json"
    ours = path.read_text()
    settings = {"fractions": (1.0,), "arms": ("scratch", "finetuned"), "iterations": 2}
    run_study(_study(workspace, "rate", draws=1, **settings))
    assert ours.count("else 0.001") == 1
    path.write_text(ours.replace("else 0.001", "else 0.05"))
    try:
        with pytest.raises(
            ValueError, match=r"scratch.* other settings: learning_rate was 0\.001, is 0\.05; give this"
        ):
            run_study(_study(workspace, "rate", draws=2, **settings))
    finally:
        path.write_text(ours)


def test_a_setting_of_a_run_that_is_given_for_all_is_recorded(workspace):
    study = _study(workspace, "interval", arms=("scratch", "finetuned"), training={"scratch:val_interval": 2})
    configs = runs.StudyContext.open(study).configs
    assert configs["scratch"]["val_interval"] == 2
    assert "val_interval" not in configs["finetuned"]


@pytest.mark.parametrize(
    ("slip", "message"),
    [
        ({"lerning_rate": 0.1}, "there is no setting 'lerning_rate'; the nearest is 'learning_rate'"),
        ({"scratch:batch_size": "eight"}, "batch_size must be a whole number"),
        ({"train#loss#pos_wieght": 3}, "the nearest is 'train#loss#pos_weight'"),
    ],
)
def test_a_slip_in_a_setting_is_refused_before_the_first_run(workspace, slip, message):
    with pytest.raises(SettingError, match=message):
        run_study(_study(workspace, "slip", training=slip, arms=("frozen", "scratch")))
    assert not (workspace / "slip").exists()


def test_labelled_patients_of_a_smaller_fraction_are_among_those_of_a_larger_one(done):
    study = done[0]
    counts = [
        json.loads(path.read_text())["labelled_patients"]
        for path in sorted((study.output_dir / "runs" / "frozen").rglob("draw0/settings.json"))
    ]
    assert len(set(counts)) == 2


def test_an_encoder_that_saw_a_test_patient_is_refused_unless_that_is_accepted(workspace):
    index = open_index(workspace / "phantoms")
    _encoder(workspace / "bundle", list(index.loc[index["split"] == "test", "patient_id"])[:1])
    try:
        study = _study(workspace, "leaky", fractions=(1.0,), draws=1)
        with pytest.raises(ValueError, match="pretraining saw 1 of the"):
            run_study(study)
        assert read_metrics(run_study(study, allow_seen_patients=True))["n"]["seen_patients"] == 1
    finally:
        _encoder(workspace / "bundle", [])


def test_a_study_that_is_spread_has_the_rows_of_one_that_is_not(workspace, done, capsys):
    study = _study(workspace, "spread", fractions=(1.0,), arms=("scratch", "frozen"), draws=1)
    run_study(study, workers=1)
    assert sorted(re.findall(r"^run (\d) of 2: ", capsys.readouterr().err, re.MULTILINE)) == ["1", "2"]
    for run in study.runs():
        one, other = (np.load(run.folder(of.output_dir) / "scores.npz")["scores"] for of in (study, done[0]))
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    run_study(study, workers=1)
    assert "run " not in capsys.readouterr().err, "what is complete is not run again"


def test_a_study_is_run_by_one_process_at_a_time(workspace):
    with locked(workspace / "held" / ".lock", "it"), pytest.raises(FileExistsError, match=r"is at work on .*held"):
        run_study(_study(workspace, "held"))


def test_probes_on_the_same_embeddings_are_done_by_one_worker(workspace):
    study = _study(workspace, arms=("scratch", "random_frozen", "frozen"), fractions=(0.5, 1.0), draws=2)
    chunks = runs._together(runs.StudyContext.open(study), study.runs())
    assert sorted(len(chunk) for chunk in chunks) == [1, 1, 1, 1, 2, 2, 4]
    assert sorted(map(str, (run for chunk in chunks for run in chunk))) == sorted(map(str, study.runs()))


def test_a_run_that_loses_its_worker_twice_ends_the_study_and_is_named():
    with pytest.raises(ChildProcessError, match=r"twice at the run scratch, 50\.00% of patients, draw 2 \(SIGKILL\)"):
        runs._blame(PlannedRun("scratch", 0.5, 1), WorkerLostError("SIGKILL"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fractions": (1.5,)}, r"at most 1 \(100 %\); got \[1.5\]"),
        ({"arms": ("frozen",)}, "the reference one of them"),
        ({"arms": ("scratch", "dino")}, "passed as --arm NAME=FILE"),
        ({"training": {"frozen:learning_rate": 0.1}}, r"ARM:KEY=VALUE with an arm of \['scratch', 'finetuned'\]; got"),
        ({"draws": 0}, "draws and iterations must be at least 1, got 0"),
        (
            {"training": {"encoder_path": "e.safetensors", "finetuned:findings": ["Mass"]}},
            r"--set cannot change what the study sets itself: encoder_path \(pass --arm NAME=FILE .*\); "
            r"finetuned:findings \(set them in metadata.json, or .*bundle --findings\)",
        ),
        ({"training": {"label_fraction": 0.5}}, r"label_fraction \(pass --fractions\)"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(SettingError, match=message):
        Study("b", "d", "o", **settings)


def test_every_setting_that_the_study_passes_to_a_run_and_an_override_would_repeat_is_refused(workspace, monkeypatch):
    """What `run_bundle` gets by name fails with an override of the same name, or is overridden in silence."""
    passed: dict[str, object] = {}
    monkeypatch.setattr(runs, "run_bundle", lambda bundle, name, **settings: passed.update(settings) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run_study(_study(workspace, "passed", fractions=(1.0,), draws=1, arms=("scratch", "finetuned")))
    for key in {*passed, "bundle_root", "findings", "encoder_path"} - {
        "val_interval",
        "seed",
        "n_bootstrap",
        "num_workers",
    }:
        with pytest.raises(SettingError, match=rf"--set cannot change .* {key} \("):
            _study(workspace, training={key: "any"})


@pytest.mark.slow
def test_the_command_fine_tunes_another_encoder_along_with_that_of_the_bundle(workspace):
    path = workspace / "other.pt"
    torch.save(encoder("resnet10", 0.125).state_dict(), path)
    bundle, archive, out = (str(workspace / name) for name in ("bundle", "phantoms", "given"))
    arguments = [
        "study",
        bundle,
        "--dataset-dir",
        archive,
        "-o",
        out,
        "--fractions",
        "100",
        "--draws",
        "1",
        "--arms",
        "scratch,finetuned",
        "--arm",
        f"other={path}",
        "--iterations",
        "4",
        "--set",
        "layer_decay=0.5",
        "--set",
        "balance=class_weights",
        "--set",
        "other:learning_rate=0.002",
    ]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    table = pd.read_csv(workspace / "given" / "table.csv")
    assert set(table["arm"]) == {"scratch", "finetuned", "other"}
    rates = {
        arm: json.loads((workspace / "given" / "runs" / arm / "100percent" / "draw0" / "config.json").read_text())
        for arm in ("finetuned", "other")
    }
    own = json.loads((workspace / "bundle" / "configs" / "train.json").read_text())["learning_rate"]
    assert [config["learning_rate"] for config in rates.values()] == [own, 0.002]


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_24_runs_on_a_cluster_whose_worker_and_driver_are_killed_are_those_of_one_process(workspace, tmp_path):
    settings = {"fractions": (0.2, 0.5, 1.0), "draws": 2, "arms": ("scratch", "random_frozen", "frozen", "finetuned")}
    alone, spread = _study(workspace, "24-alone", **settings), _study(workspace, "24-spread", **settings)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as workers have it, so that bits are equal
    run_study(alone)
    torch.set_num_threads(threads)
    cluster = DaskCluster(tmp_path / "dask", workers=3, COMM__TIMEOUTS__CONNECT="60s")
    command = [sys.executable, "-W", "ignore", "-m", "monai_simclr", "study", str(spread.bundle), "--iterations", "4"]
    command += ["--dataset-dir", str(spread.dataset_dir), "-o", str(spread.output_dir), "--fractions", "20,50,100"]
    command += ["--draws", "2", "--engine", cluster.engine]

    def start() -> subprocess.Popen[str]:
        environment, pipe = {**os.environ, **cluster.environment}, subprocess.PIPE
        return subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True)

    def await_runs(count: int, process: subprocess.Popen[str]) -> None:
        while len(list(spread.output_dir.rglob("settings.json"))) < count:
            assert process.poll() is None, process.communicate()
            time.sleep(0.1)

    try:
        process = start()
        await_runs(6, process)
        process.kill()
        process.communicate()
        kept = {path: path.stat().st_mtime_ns for path in spread.output_dir.rglob("settings.json")}
        process = start()
        await_runs(len(kept) + 4, process)
        cluster.processes[1].kill()
        said = process.communicate(timeout=1800)
        assert process.returncode == 0, (said, cluster.log())
    finally:
        cluster.close()
    assert {path: path.stat().st_mtime_ns for path in kept} == kept, "what is complete is not run again"
    assert sorted(re.findall(r"^run (\d+) of 24: ", said[1], re.MULTILINE)) == sorted(
        str(number) for number in range(len(kept) + 1, 25)
    )
    for run in alone.runs():
        one, other = (np.load(run.folder(of.output_dir) / "scores.npz") for of in (alone, spread))
        for name in ("scores", "labels", "patients", "findings"):
            np.testing.assert_array_equal(other[name], one[name], err_msg=f"{name} of {run}")
    pd.testing.assert_frame_equal(*(pd.read_csv(of.output_dir / "table.csv") for of in (spread, alone)))
    assert read_metrics(spread.output_dir)["values"] == read_metrics(alone.output_dir)["values"]
