from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
import urllib.parse
from datetime import datetime
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from monai_simclr.data.index import COLUMNS, OPTIONAL_COLUMNS
from monai_simclr.evaluation import Embeddings, Predictions, score_subgroups, score_table
from monai_simclr.report import ReportData, collect_runs, figures, summary, write_report
from monai_simclr.report.html import Table
from monai_simclr.runtime.metrics import write_metrics

EVIL = "<script>alert('x')</script>"
SECTIONS = [
    "summary",
    "runs",
    "confounders",
    "scores",
    "calibration",
    "subgroups",
    "few-labels",
    "map",
    "clusters",
    "sheets",
    "training",
    "results",
    "checklist",
    "versions",
]


class _Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sections: list[str] = []
        self.sources: list[str] = []
        self.images: list[dict] = []
        self.labels: list[str] = []
        self.radios: list[str] = []
        self.links: list[str] = []
        self.downloads: dict[str, str] = {}
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append(tag)
        if tag == "section":
            self.sections.append(attributes["id"])
        if tag == "img":
            self.images.append(attributes)
        if tag == "label":
            self.labels.append(attributes["for"])
        if tag == "input":
            assert attributes["type"] == "radio"
            self.radios.append(attributes["id"])
        if tag == "a" and "download" in attributes:
            self.downloads[attributes["download"]] = attributes["href"]
        elif tag == "a":
            self.links.append(attributes["href"])
        elif "src" in attributes or "href" in attributes:
            self.sources.append(attributes.get("src") or attributes["href"])


@pytest.fixture(scope="module")
def report_data() -> ReportData:
    rng = np.random.default_rng(0)
    n = 120
    mass = rng.integers(2, size=n).astype(float)
    index = pd.DataFrame(
        {
            "image": [f"{i}.png" for i in range(n)],
            "patient_id": [f"secret{i // 2}" for i in range(n)],
            "split": ["val"] * 40 + ["test"] * 80,
            "view_position": ["PA", EVIL] * (n // 2),
            "sex": ["M", "M", "F", "F"] * (n // 4),
            "age": rng.integers(20, 90, size=n).astype(float),
            EVIL: mass,
        }
    )
    logits = (2 * mass - 1 + rng.normal(size=n))[:, None]
    everyone = Predictions(mass[:, None], logits, index["patient_id"].to_numpy(), [EVIL])
    test, val = everyone.where(np.arange(40, n)), everyone.where(np.arange(40))
    baseline = [{"finding": EVIL, "model": 0.8, "baseline": 0.6, "difference": 0.2, "low": 0.1, "high": 0.3}]
    alignment = {"sentence": f"these clusters follow {EVIL}", EVIL: {"kind": "finding", "ami": 0.5, "n": 80}}
    study = [
        {"arm": EVIL, "fraction": f, "mean": 0.6, "sd": None, "mean_low": 0.5, "mean_high": 0.7} for f in (0.01, 0.1)
    ]
    metrics = {
        "cluster": {"values": {"alignment": alignment}, "seed": 0, "n": {"images": 80, "seen_patients": 0}},
        "train": {
            "values": {EVIL: {"value": 0.5, "low": None}},
            "baselines": {"confounder_baseline": baseline},
            "n": {},
        },
    }
    return ReportData(
        metrics=metrics,
        embeddings=Embeddings(rng.normal(size=(n, 4)), index),
        clusters=np.arange(n) % 2,
        thumbnails=rng.integers(255, size=(n, 8, 8), dtype=np.uint8),
        history=[{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.0}],
        study=study,
        scores=score_table(test, val, n_bootstrap=50),
        subgroups=score_subgroups(test, index.iloc[40:], n_bootstrap=50),
        test=test,
        val=val,
        commands=[EVIL],
    )


@pytest.fixture(scope="module")
def page(report_data, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    return write_report(path, title=EVIL, notice="phantom: says nothing about patients", data=report_data)


def test_a_full_report_has_every_section_escapes_names_and_needs_no_other_file(page):
    text = page.read_text()
    found = _Page(text)
    assert found.sections == SECTIONS
    assert "script" not in found.tags
    assert "phantom: says nothing about patients" in text
    assert "These clusters follow" in text
    assert all(source.startswith("data:") for source in found.sources)
    assert "secret" not in text


def test_every_figure_is_a_picture_with_a_text_alternative(page):
    found = _Page(page.read_text())
    assert len(found.images) == 4 + 2 + 1 + 2 + 1  # maps, sheets, reliability, summary, training
    for image in found.images:
        data = base64.b64decode(image["src"].removeprefix("data:image/png;base64,"))
        assert data[:4] == b"\x89PNG"
        assert len(image["alt"]) > 10


def test_the_map_is_switched_by_labelled_radio_buttons_and_links_lead_to_sections(page):
    found = _Page(page.read_text())
    assert found.radios == found.labels == [f"map-{i}" for i in (1, 2, 3, 4)]
    paper = "https://doi.org/10.1136/bmj-2023-078378"
    assert [link for link in dict.fromkeys(found.links) if link != paper] == [f"#{name}" for name in SECTIONS]


def test_an_empty_report_has_no_empty_sections_and_names_them_in_one_folded_line(tmp_path):
    text = write_report(tmp_path / "r.html", title="t", notice="", data=ReportData()).read_text()
    found = _Page(text)
    assert found.sections == ["checklist"]
    assert found.links[0] == "#checklist"
    assert "Not in this report: 13 sections" in text.split("<details>")[-1]
    assert "Scores, Calibration" in text.split("<details>")[-1]
    assert 'role="note"' not in text


def test_the_summary_comes_first_with_statements_their_intervals_and_what_would_falsify_them(tmp_path):
    row = {"arm": "pretrained", "fraction": 0.1, "draws": 5, "mean": 0.9, "difference": 0.2, "p": 0.01}
    known = {"low": 0.15, "high": 0.25, "low_draws": 0.1, "high_draws": 0.3}
    ami = {"low": 0.1, "high": 0.3, "null_high": 0.05}
    knn = {"encoder": {"value": 0.6, "low": 0.5, "high": 0.7, "majority": 0.2}, "raw pixels": {"value": 0.55}}
    clusters = {"encoder": {"6": {"ami": {"value": 0.2, **ami}}}, "random encoder": {"6": {"ami": {"value": 0.04}}}}
    data = ReportData(
        metrics={
            "cluster": {
                "command": "cluster",
                "split": "test",
                "n": {"test_images": 80, "test_patients": 30},
                "values": {"knn": knn, "clusters": clusters},
            }
        },
        study=[{**row, "arm": "scratch", "mean": 0.7, "difference": 0.0, "p": None}, {**row, **known}],
    )
    text = write_report(tmp_path / "r.html", title="t", notice="", data=data).read_text()
    summary = text.split('<section id="summary">')[1].split("</section>")[0]
    assert "cluster (test): 80 test images, 30 test patients" in summary
    claims = [line for line in summary.splitlines() if line.startswith("<li><span")]
    assert len(claims) == 3
    assert all("Would falsify it:" in claim for claim in claims)
    assert "macro AUROC 0.900 pretrained, fine-tuned, 0.700 from random weights" in claims[0]
    assert "difference +0.200 [0.100, 0.300] over test patients and 5 draws of the labelled" in claims[0]
    assert ">Shown<" in claims[0]
    assert ">Not shown<" in claims[1], "raw pixels, 0.55, are inside the interval of the encoder"
    assert "raw pixels 0.550" in claims[1]
    assert ">Shown<" in claims[2]
    assert _Page(text).sections[0] == "summary"


def test_a_claim_for_the_mean_names_the_findings_for_which_it_is_not_shown(tmp_path):
    rows = [("Mass", 0.8, 0.7, 0.9), ("Edema", 0.55, 0.4, 0.7), ("macro mean", 0.7, 0.6, 0.8)]
    scores = pd.DataFrame(rows, columns=["finding", "value", "low", "high"]).assign(score="AUROC")
    metrics = {"train": {"command": "train", "values": {}, "n": {"labelled_patients": 39}}}
    found = summary.statements(ReportData(metrics=metrics, scores=scores))
    assert [statement.shown for statement in found] == [True]
    assert "macro mean (not shown for Edema); chance 0.500; one run, with the labels of 39 patients" in found[0].numbers


def test_runs_are_listed_in_the_order_in_which_they_were_made(tmp_path, monkeypatch):
    for name, minute in (("a", 2), ("b", 1)):
        now = SimpleNamespace(now=lambda zone, minute=minute: datetime(2026, 1, 1, 0, minute, tzinfo=zone))
        monkeypatch.setattr("monai_simclr.runtime.metrics.datetime", now)
        write_metrics(tmp_path / name, {}, command=name, split="test", seed=0, n={})
    assert list(collect_runs([tmp_path]).metrics) == ["b", "a"]


def test_a_difference_whose_interval_has_0_is_not_claimed(tmp_path):
    row = {"arm": "finetuned", "fraction": 0.01, "draws": 5, "mean": 0.6, "difference": 0.01, "p": 0.4, "sd": 0.1}
    for ends in (
        {"low": -0.01, "high": 0.03, "low_draws": -0.01, "high_draws": 0.03},
        {"low": 0.001, "high": 0.02, "low_draws": -0.01, "high_draws": 0.03},
        {"low": 0.001, "high": 0.02, "low_draws": None, "high_draws": None, "draws": 1},
    ):
        data = ReportData(study=[{**row, **ends}])
        text = write_report(tmp_path / "r.html", title="t", notice="", data=data).read_text()
        assert "Not shown</span> Pretraining helps with 1 % of the labels" in text
    assert "of one draw of the labelled patients; what another would give is not known" in text


def test_the_gain_over_all_small_fractions_comes_before_the_smallest_fraction():
    row = {"arm": "finetuned", "fraction": 0.01, "draws": 5, "mean": 0.6, "difference": 0.05, "p": 0.4}
    ends = {"low": 0.01, "high": 0.09, "low_draws": -0.01, "high_draws": 0.1}
    gain = {**row, **ends, "fractions": "1, 2, 5", "low_draws": 0.02}
    [statement] = summary.statements(ReportData(study=[{**row, **ends}], gain=[gain]))
    assert statement.shown
    assert statement.claim == "Pretraining helps with 1, 2, 5 % of the labels"


def test_of_two_runs_of_a_command_statements_and_tables_are_those_of_the_last(tmp_path, monkeypatch):
    def write(name: str, minute: int, auroc: float, split: str, labelled: int | None, command: str) -> None:
        now = SimpleNamespace(now=lambda zone: datetime(2026, 1, 1, 0, minute, tzinfo=zone))
        monkeypatch.setattr("monai_simclr.runtime.metrics.datetime", now)
        baseline = [
            {"finding": "Mass", "model": auroc, "baseline": 0.6, "difference": auroc - 0.6, "low": 0, "high": 1}
        ]
        n = {} if labelled is None else {"labelled_patients": labelled}
        baselines = {"confounder_baseline": baseline if split == "test" else []}
        write_metrics(tmp_path / name, {}, command=command, split=split, seed=0, n=n, baselines=baselines)
        rows = [("Mass", "AUROC", auroc, auroc - 0.1, auroc + 0.1), ("None", "AUROC", 0.6, 0.5, 0.7)]
        table = pd.DataFrame(rows, columns=["finding", "score", "value", "low", "high"])
        table.to_csv(tmp_path / name / "scores.csv", index=False)

    write("first", 1, 0.9, "test", 5000, "train")
    write("second", 2, 0.7, "test", 20, "train")
    data = collect_runs([tmp_path])
    ranking, confounders = summary.statements(data)
    assert "0.600 [0.500, 0.700], None" in ranking.numbers
    assert "the labels of 20 patients" in ranking.numbers
    assert "AUROC 0.700, of view + age + sex 0.600" in confounders.numbers
    assert data.scores["finding"].tolist() == ["Mass", "None"]
    write("third", 3, 0.95, "val", None, "evaluate")
    [ranking] = summary.statements(collect_runs([tmp_path]))
    assert ranking.claim == "The classifier ranks val images better than chance"
    assert "labels of" not in ranking.numbers


def test_every_table_is_saved_as_csv_without_a_script_and_opens_in_pandas(page):
    text = page.read_text()
    found = _Page(text)
    assert len(found.downloads) == text.count("<caption>")
    tables = {}
    for name, link in found.downloads.items():
        head, _, body = link.partition(",")
        assert head == "data:text/csv;charset=utf-8"
        tables[name] = pd.read_csv(io.StringIO(urllib.parse.unquote(body)))
    scores = next(table for name, table in tables.items() if name.startswith("ranking-and-operating-points"))
    assert {"AUROC", "AUROC low", "AUROC high"} <= set(scores)
    assert (scores["AUROC low"] < scores["AUROC"]).all()


def test_curves_are_labelled_in_words_with_chance_in_the_same_plot(monkeypatch):
    drawn = []
    monkeypatch.setattr(figures, "figure_source", lambda figure: drawn.append(figure) or "data:")
    history = [{"epoch": e, "loss": 2.0, "chance_loss": 5.5, "top1": 0.1, "chance": 0.01} for e in (1, 2)]
    figures.training_curves(history)
    panels = [figure.axes[0] for figure in drawn]
    assert [axes.get_title().strip() for axes in panels] == [
        "contrastive loss",
        "share of views whose partner is nearest",
    ]
    for axes, chance in zip(panels, (5.5, 0.01), strict=True):
        lines = {line.get_label().strip(): line.get_ydata() for line in axes.get_lines()}
        assert list(lines["chance"]) == [chance, chance]
    curve = figures.label_curve([{"arm": "finetuned", "fraction": f, "mean": 0.7, "sd": 0.1} for f in (0.1, 1)])
    assert [text.get_text().strip() for text in curve.axes[0].get_legend().get_texts()] == [
        "chance",
        "pretrained, fine-tuned",
    ]


def test_the_checklist_has_tripod_ai_beside_claim(page):
    text = page.read_text()
    assert '<th scope="col">CLAIM</th><th scope="col">TRIPOD+AI items</th>' in text
    assert "BMJ 385:e078378" in text
    items = re.search(r"Subgroups, fairness</td><td>yes</td><td>([^<]*)", text)[1]
    assert "14" in items.split(", ")


def test_clusters_of_other_images_are_refused():
    with pytest.raises(ValueError, match="3 clusters do not go with 0 embeddings"):
        ReportData(clusters=np.zeros(3))


def test_runs_are_collected_from_a_folder_of_runs(tmp_path):
    write_metrics(tmp_path / "pretrain", {"loss": 1.0}, command="pretrain", split="train", seed=0, n={"images": 4})
    (tmp_path / "pretrain" / "history.json").write_text('[{"epoch": 1, "loss": 2.0}]')
    (tmp_path / "pretrain" / "config.json").write_text(
        json.dumps({"max_epochs": 3, "x": "a b", "engine": "", "device": "$torch.device('cpu')"})
    )
    found = collect_runs([tmp_path])
    assert list(found.metrics) == ["pretrain"]
    assert found.history == [{"epoch": 1, "loss": 2.0}]
    assert found.commands == ["python -m monai.bundle run --config_file configs/pretrain.json --max_epochs 3 --x 'a b'"]
    with pytest.raises(FileNotFoundError, match=r"has no metrics.json, nor has a folder in it"):
        collect_runs([tmp_path / "nothing"])


def test_clusters_are_those_of_the_largest_number_that_the_metrics_name(tmp_path):
    scores = {"ami": {"value": 0.5, "low": 0.4, "high": 0.6}}
    values = {
        "clusters": {"encoder": {"9": scores, "10": scores}},
        "n_clusters": {"chosen": 9, "curve": {"kmeans": {"9": {"stability": 0.1}}}},
        "prevalence": {"Mass": {"9": {"auroc": 0.7}}},
    }
    write_metrics(tmp_path, values, command="cluster", split="test", seed=0, n={"images": 2})
    index = pd.DataFrame({"image": ["1.png", "2.png"], "patient_id": ["a", "b"]})
    Embeddings(np.eye(2, dtype=np.float32), index).save(tmp_path / "embeddings.npz")
    (tmp_path / "clusters.csv").write_text("image,cluster_of_9,cluster_of_10\n1.png,1,3\n2.png,2,4\n")
    data = collect_runs([tmp_path])
    assert data.clusters.tolist() == [3, 4]
    text = write_report(tmp_path / "r.html", title="t", notice="", data=data).read_text()
    for title, cells in {
        "clusters": ["encoder", "10", "ami", "0.500", "0.400", "0.600"],
        "n_clusters": ["curve", "kmeans", "9", "0.100"],
        "prevalence": ["Mass", "9", "0.700"],
    }.items():
        assert f"<caption>cluster (test): {title} <a" in text
        assert "".join(f"<td>{cell}</td>" for cell in cells) in text
    assert "<td>n_clusters chosen</td><td>9</td>" in text


def test_metrics_of_clusters_from_another_version_are_refused_with_the_file_s_name(tmp_path):
    write_metrics(tmp_path, {"clusters": {"encoder, k=9, ami": {}}}, command="cluster", split="test", seed=0, n={})
    Embeddings(np.eye(2, dtype=np.float32), pd.DataFrame({"image": ["1", "2"], "patient_id": ["a", "b"]})).save(
        tmp_path / "embeddings.npz"
    )
    with pytest.raises(
        ValueError, match=r"metrics\.json cannot be read as metrics of clusters: it lacks 'encoder'; run"
    ):
        collect_runs([tmp_path])


def test_no_column_of_the_index_that_is_not_a_label_is_shown_as_a_finding(tmp_path):
    """Whatever optional columns an index gets: the lists are those of `data.index`."""
    columns = {name: [f"{name} {i}" for i in range(8)] for name in (*COLUMNS, *OPTIONAL_COLUMNS)}
    index = pd.DataFrame({**columns, "age": 50.0, "split": "test", "Mass": 1.0})
    data = ReportData(
        metrics={"cluster": {"command": "cluster", "values": {}}},
        embeddings=Embeddings(np.random.default_rng(0).normal(size=(8, 3)), index),
        clusters=np.zeros(8, dtype=int),
    )
    text = write_report(tmp_path / "r.html", title="t", notice="", data=data).read_text()
    for name in OPTIONAL_COLUMNS:
        assert f'<th scope="col">{name}</th>' not in text
    assert '<th scope="col">cluster</th><th scope="col">Mass</th></tr>' in text
    assert "<td>AP</td><td>0%</td></tr><tr><td>Mass</td><td>8 (8)</td></tr>" in text


def test_further_tables_stand_in_the_summary_as_text(tmp_path):
    table = Table("what a start changes", ["encoder", "accuracy"], [[EVIL, "0.9 [0.8, 1.0]"]])
    page = write_report(tmp_path / "page.html", title="t", notice="", data=ReportData(tables=[table]))
    text = page.read_text(encoding="utf-8")
    section = text[text.index('<section id="summary">') : text.index("</section>")]
    assert "what a start changes" in section
    assert "0.9 [0.8, 1.0]" in section
    assert EVIL not in text


def _browser() -> str:
    found = next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
    )
    if not found:
        pytest.skip("no chromium here; apt-get install chromium")
    return found


def _visit(page: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [
        _browser(),
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={folder / 'profile'}",
        "--enable-logging=stderr",
        "--v=0",
        *arguments,
        page.as_uri(),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_a_real_browser_shows_the_page_without_an_error(page, tmp_path):
    done = _visit(page, tmp_path, "--dump-dom")
    assert done.returncode == 0
    assert "CONSOLE" not in done.stderr, done.stderr
    found = _Page(done.stdout)
    assert found.sections == SECTIONS
    assert len(found.images) == 10


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True])
def test_light_and_dark_are_drawn_and_differ(page, tmp_path, dark):
    from PIL import Image

    mode = ["--blink-settings=preferredColorScheme=0"] if dark else ["--blink-settings=preferredColorScheme=1"]
    _visit(page, tmp_path, f"--screenshot={tmp_path / 'shot.png'}", "--window-size=1200,2000", *mode)
    with Image.open(tmp_path / "shot.png") as shot:
        corner = np.asarray(shot.convert("L"))[:8, :8].mean()
    assert corner < 60 if dark else corner > 240


@pytest.mark.slow
def test_the_page_prints(page, tmp_path):
    _visit(page, tmp_path, f"--print-to-pdf={tmp_path / 'page.pdf'}")
    assert (tmp_path / "page.pdf").read_bytes()[:5] == b"%PDF-"
