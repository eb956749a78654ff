"""Write the tables of docs/results.md that come from benchmarks/results, so that no number is copied by hand.

Run: python docs/result_tables.py     (after a run of benchmarks/tries.py, inference.py, or a study and real_floor.py)
"""

from __future__ import annotations

import ast
import csv
import json
from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

from marked import fill as fill_marked
from marked import table

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "results.md"
Row = dict[str, str]

QUESTIONS = {
    "kermany Pneumonia": "Kermany Pneumonia",
    "kermany Bacteria": "bacteria / virus",
    "nih Pneumonia": "NIH Pneumonia",
}
"""Columns of the tries, and what they ask."""

STUDIES = {
    ("kermany", "Bacteria"): "Kermany, bacteria against virus",
    ("kermany", "Pneumonia"): "Kermany, Pneumonia",
    ("kermany", "macro mean"): "Kermany, mean of both",
    ("nih", "macro mean"): "NIH, Pneumonia",
}
"""Study and finding of its table, and their name; with one finding the macro mean is that finding."""

COMPARED = {
    ("finetuned", "scratch"): "fine-tuned minus scratch",
    ("frozen", "random_frozen"): "frozen minus random, frozen",
}
"""Rows of the gains: arm and reference, and their words."""

ARMS = ("scratch", "finetuned", "frozen", "random_frozen")
FLOORS = ("pixels", "tone")


def read(path: Path) -> list[Row]:
    """Rows of a CSV file below benchmarks/results."""
    with open(RESULTS / path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def gap(difference: float, low: float, high: float, places: int = 3) -> str:
    """A difference and its interval, bold where the interval leaves 0 out.

    Example:
        >>> gap(0.05, 0.01, 0.1), gap(-0.02, -0.05, 0.01)
        ('**+0.050 [0.010, 0.100]**', '-0.020 [-0.050, 0.010]')
    """
    text = f"{difference:+.{places}f} [{low:.{places}f}, {high:.{places}f}]"
    return f"**{text}**" if low > 0 or high < 0 else text


def tries(which: str) -> str:
    """Tries of a round of `benchmarks/tries.py`, the best mean first, and its floors."""
    head = ["try", *QUESTIONS.values(), "mean of nine", "minus base at 2 %", "at 10 %"]
    rows = []
    for row in read(Path(f"tries_{which}.csv")):
        areas = [" / ".join(f"{float(row[f'{name}, {share}%']):.2f}" for share in (2, 10, 100)) for name in QUESTIONS]
        gaps = [
            "" if row["name"] == "base" else gap(*ast.literal_eval(row[f"minus base, {share}%"])) for share in (2, 10)
        ]
        rows.append([row["name"], *areas, f"{float(row['mean']):.3f}", *gaps])
    return table(head, rows)


def study() -> str:
    """Every fraction of the two studies: the arms and floors, and the two differences that the study is about."""
    head = [
        "data, finding",
        "patients",
        "draws",
        "scratch",
        "fine-tuned",
        "frozen",
        "random, frozen",
        "pixels",
        "3 numbers",
        "fine-tuned minus scratch",
        "draws too",
        "frozen minus random",
    ]
    return table(head, [line for (name, finding), title in STUDIES.items() for line in _study(name, finding, title)])


def _study(name: str, finding: str, title: str) -> list[list[str]]:
    floors = _floors(name, finding)
    by: dict[str, dict[tuple[str, str], Row]] = {}
    for part in ("", "_ten_draws"):  # where there are ten draws they count
        for row in read(Path(f"real_pack/{name}{part}.csv")):
            if row["finding"] == finding:
                by.setdefault(row["fraction"], {})[row["arm"], row["reference"]] = row
    lines = []
    for fraction, rows in by.items():
        against, frozen = rows["finetuned", "scratch"], rows["frozen", "random_frozen"]
        areas = [f"{float(rows[arm, 'scratch']['mean']):.3f}" for arm in ARMS]
        areas += [f"{mean(floors[fraction, floor]):.3f}" for floor in FLOORS]
        share = f"{against['patients']} ({100 * float(fraction):g} %)"
        with_draws = _gap_of(against, "_draws")
        lines.append([title, share, against["draws"], *areas, _tested(against), with_draws, _tested(frozen)])
    return lines


def _floors(name: str, finding: str) -> dict[tuple[str, str], list[float]]:
    """Areas by fraction and floor; of every finding for the macro mean."""
    found: dict[tuple[str, str], list[float]] = {}
    for row in read(Path(f"real_pack/{name}_floors.csv")):
        if row["images"] == "all" and finding in (row["finding"], "macro mean"):
            found.setdefault((row["fraction"], row["arm"]), []).append(float(row["mean"]))
    return found


def gain() -> str:
    """What is gained where labels are few: the mean over the small fractions, one row a comparison."""
    head = ["data, finding", "compared", "patients, %", "draws", "over test patients", "p", "draws too"]
    lines = []
    for (name, finding), title in STUDIES.items():
        for pair, words in COMPARED.items():
            for part in ("", "_ten_draws"):
                rows = read(Path(f"real_pack/{name}_gain{part}.csv"))
                row = next(row for row in rows if (row["finding"], row["arm"], row["reference"]) == (finding, *pair))
                tested = [_gap_of(row), _p(row["p"]), _gap_of(row, "_draws")]
                lines.append([title, words, row["fractions"], row["draws"], *tested])
    return table(head, lines)


def _gap_of(row: Row, which: str = "") -> str:
    difference, low, high = (row[key] for key in ("difference", f"low{which}", f"high{which}"))
    return gap(float(difference), float(low), float(high)) if low else ""  # one draw has none between draws


def _tested(row: Row) -> str:
    p = f"p {_p(row['p_holm'])}" if row["p_holm"] else "the same scores"
    return f"{_gap_of(row)}, {p}"


def _p(value: str) -> str:
    """A p-value to three decimals."""
    return f"{float(value):.3f}" if float(value) >= 0.0005 else "< 0.001"


NIH_ARMS = {
    "scratch": "scratch",
    "finetuned": "fine-tuned",
    "frozen": "probe",
    "random_frozen": "random network, probe",
    "imagenet": "ImageNet, probe",
    "pixels": "pixels",
    "picture": "picture statistics",
    "demographics": "view, age, sex",
}
"""Arms of the study on NIH radiographs, and their words."""


def _efficiency(size: int, finding: str, reference: str) -> dict[tuple[str, str], Row]:
    """Rows of the study on NIH radiographs, with networks of a size in pixels, by fraction and arm."""
    rows = read(Path(f"label_efficiency_{size}.csv"))
    return {
        (row["fraction"], row["arm"]): row for row in rows if (row["finding"], row["reference"]) == (finding, reference)
    }


def efficiency(size: int) -> str:
    """Macro AUROC of the six findings at every fraction; probes over their own draws, trained networks over theirs."""
    trained, probes = _efficiency(size, "macro mean", "scratch"), _efficiency(size, "macro mean", "random_frozen")
    head = ["patients", *NIH_ARMS.values(), "fine-tuned minus scratch", "draws too", "probe minus scratch"]
    lines = []
    for fraction in sorted({key[0] for key in probes}, key=float):
        areas, tested = [], ["", "", ""]
        for arm in NIH_ARMS:
            row = probes.get((fraction, arm)) or trained.get((fraction, arm))
            areas.append(f"{float(row['mean']):.3f} ({row['draws']})" if row else "")
        if (fraction, "finetuned") in trained:
            against, probe = trained[fraction, "finetuned"], trained[fraction, "frozen"]
            tested = [_tested(against), _gap_of(against, "_draws"), _tested(probe)]
        lines.append([f"{100 * float(fraction):g} %", *areas, *tested])
    return table(head, lines)


def efficiency_findings(size: int) -> str:
    """Every finding with all labels: the probe, and what it is compared with."""
    head = ["finding", "probe", "pixels", "random network", "ImageNet", "probe minus ImageNet", "probe minus random"]
    names = dict.fromkeys(row["finding"] for row in read(Path(f"label_efficiency_{size}.csv")))
    lines = []
    for finding in names:
        rows = _efficiency(size, finding, "imagenet")
        own, random = rows["1.0", "frozen"], _efficiency(size, finding, "random_frozen")["1.0", "frozen"]
        area = f"{float(own['mean']):.3f} [{float(own['mean_low']):.3f}, {float(own['mean_high']):.3f}]"
        others = [f"{float(rows['1.0', arm]['mean']):.3f}" for arm in ("pixels", "random_frozen", "imagenet")]
        lines.append([finding, area, *others, _gap_of(own), _gap_of(random)])
    return table(head, lines)


def efficiency_gain(size: int) -> str:
    """The mean over the fractions up to 10 %, one row a comparison."""
    head = ["compared", "patients, %", "draws", "over test patients", "p", "draws too"]
    lines = []
    for row in read(Path(f"label_efficiency_{size}_gain.csv")):
        words = f"{NIH_ARMS[row['arm']]} minus {NIH_ARMS[row['reference']]}"
        if row["arm"] in ("finetuned", "frozen"):
            tested = [_gap_of(row), _p(row["p"]), _gap_of(row, "_draws")]
            lines.append([words, row["fractions"], row["draws"], *tested])
    return table(head, lines)


def normal() -> str:
    """Findings against films without any finding: the probe at three fractions, and floors with all labels."""
    head = ["finding", "2 %", "10 %", "100 %", "pixels", "random network", "ImageNet", "probe minus ImageNet, 100 %"]
    by: dict[str, dict[tuple[str, str], Row]] = {}
    for row in read(Path("against_normal.csv")):
        by.setdefault(row["finding"], {})[row["fraction"], row["arm"]] = row
    lines = []
    for finding, rows in by.items():
        own = rows["1.0", "frozen"]
        areas = [f"{float(rows[fraction, 'frozen']['mean']):.3f}" for fraction in ("0.02", "0.1")]
        areas.append(f"{float(own['mean']):.3f} [{float(own['mean_low']):.3f}, {float(own['mean_high']):.3f}]")
        areas += [f"{float(rows['1.0', arm]['mean']):.3f}" for arm in ("pixels", "random_frozen", "imagenet")]
        lines.append([finding, *areas, _gap_of(own)])
    return table(head, lines)


FILMS = 16_260
"""Films that the tries of `benchmarks/scaling.py` pretrain on."""


KEPT = {"long, width 0.5, 64 to 128 px": 38}
"""Tries scored with the weights of an earlier epoch than the last (`note` in scaling.json), and which."""


def compute(settings: Mapping[str, Any], kept: int | None = None) -> float:
    """Training compute of a try of `benchmarks/scaling.py` in TFLOP, without that of the encoder it started from.

    `kept` is the epoch whose weights were scored, by default the last. Estimated: forward and backward are three
    forward passes, of two views an image; a ResNet-18 with one input channel has 1.74 GMAC at 224 px, which go with the
    area, and with the square of the width but for its stem; an EfficientNet-Lite0 has 0.4.
    """
    sizes = settings["sizes"] or [[settings["size"], settings["epochs"]]]
    every = [size for size, epochs in sizes for _ in range(epochs)]
    area = sum((size / 224) ** 2 for size in every[:kept])
    images = FILMS * settings["images"]
    macs = 0.04e9 * settings["width"] + 1.7e9 * settings["width"] ** 2 if settings["encoder"] == "resnet18" else 0.4e9
    return 2 * 3 * 2 * images * area * macs / 1e12


STARTS = {
    "resnet18_half_width_nih16k.safetensors": "long, width 0.5, 64 to 128 px",
    "chest_xray_resnet18": "long, continued at 96 and 128 px, cut",
}
"""What `start` of a try names, and the try that made it; what ImageNet weights took is not counted."""


def scaling_rows() -> list[dict[str, Any]]:
    """Tries of `benchmarks/scaling.py` and their floors, the best first, with `areas` by fraction and `tflop`."""
    rows: list[dict[str, Any]] = json.loads((RESULTS / "scaling.json").read_text(encoding="utf-8"))["tries"]
    by_name = {row["name"]: row for row in rows}

    def total(row: Mapping[str, Any]) -> float:
        start = row["settings"]["start"]
        own = compute(row["settings"], KEPT.get(str(row["name"])))
        return own + (total(by_name[STARTS[start]]) if start in STARTS else 0.0)

    for row in rows:
        row["areas"] = [
            mean(value for key, value in row.items() if key.endswith(f", {share}%") and key[0] != "m")
            for share in (2, 10, 100)
        ]
        row["tflop"] = total(row) if row["settings"] else 0.0
    return sorted(rows, key=lambda row: -float(row["mean"]))


def scaling() -> str:
    """Every try of pretraining on sixteen thousand films, on validation patients, beside the floors."""
    shares = ("2 %", "10 %", "100 %")
    head = ["try", "ResNet-18 x", "px", "epochs", "images", "TFLOP", "CPU min", *shares, "mean", "partner found"]
    lines = []
    for row in scaling_rows():
        given, areas = row["settings"], [f"{area:.3f}" for area in (*row["areas"], row["mean"])]
        about = [""] * 6
        if given:
            size = " to ".join(
                str(size) for size in dict.fromkeys([*(size for size, _ in given["sizes"]), given["size"]])
            )
            cpu = f"{row['cpu_seconds'] / 60:.0f}" if "cpu_seconds" in row else ""
            about = [
                f"{given['width']:g}" if given["encoder"] == "resnet18" else "EfficientNet-Lite0",
                size,
                f"{KEPT[row['name']]} of {given['epochs']}" if row["name"] in KEPT else str(given["epochs"]),
                f"{FILMS * given['images']:,.0f}",
                f"{row['tflop']:.0f}",
                cpu,
            ]
        found = f"{row['top1']:.0%}".replace("%", " %") if "top1" in row else ""
        lines.append([row["name"] if given else f"*{row['name'].removeprefix('floor: ')}*", *about, *areas, found])
    return table(head, lines)


FOLLOWED = {
    "view_position": "view position",
    "sex": "sex",
    "age_decade": "age, by decade",
    "Effusion": "Effusion",
    "Atelectasis": "Atelectasis",
    "mean of the findings": "mean of 14 findings",
}
"""What clusters are compared with on the page, and its words."""


def clusters() -> str:
    """AMI of clusters with facts and findings, before and after the linear part of view and source is taken out."""
    follows = json.loads((RESULTS / "clusters_test.json").read_text(encoding="utf-8"))["follows"]
    head = ["clusters", "taken out", "AMI with", "encoder", "null to", "raw pixels", "gray histogram", "random encoder"]
    lines = []
    for how, by_removed in follows.items():
        for removed, by_features in by_removed.items():
            words = removed.replace("view_position", "view")
            for what, name in FOLLOWED.items():
                own = by_features["encoder"][what]
                cells = [f"{own['value']:.3f} [{own['low']:.3f}, {own['high']:.3f}]", f"{own['null_high']:.3f}"]
                for features in ("raw pixels", "grey histogram", "random encoder"):
                    floor = by_features[features][what]
                    cells.append(f"{floor['value']:.3f}" + (r" \*" if floor["lead_low"] > 0 else ""))
                lines.append([how.replace("kmeans", "k-means"), words, name, *cells])
    return table(head, lines)


def _inference() -> dict:
    return dict(json.loads((RESULTS / "inference.json").read_text(encoding="utf-8")))


def runtimes() -> str:
    """Milliseconds a call of the network by runtime."""
    found, names = _inference()["runtimes"], ("PyTorch", "TorchScript", "ONNX Runtime")
    lines = []
    for threads, batch in ((1, 1), (1, 16), (2, 1), (2, 16)):
        row = found[f"{threads} threads, batch {batch}"]
        cells = [row[name] for name in names]
        form = "{median_ms:.0f} ({p95_ms:.0f}); {images_per_second:.1f}"
        lines.append([f"{threads}, {batch}", *(form.format(**cell) for cell in cells)])
    return table(["threads, batch", *names], lines)


def stages() -> str:
    """The whole way by stage, and building a store."""
    found, names = _inference(), ("decode", "network", "writing", "rest")
    head = ["files", "images/s", *names, "store building, images/s"]
    lines = []
    for kind, row in found["workflow"].items():
        each = [f"{1000 * row['seconds'][name] / row['files']:.1f}" for name in names]
        lines.append(
            [kind, f"{row['images_per_second']:.1f}", *each, f"{found['store'][kind]['images_per_cpu_second']:.0f}"]
        )
    return table(head, lines)


def end_to_end() -> str:
    """PNG to rows by runtime, of both networks."""
    head = ["network", "`--runtime`", "decoding, ms", "network, ms", "images/s", "of torch's"]
    lines = []
    for network, runs in _inference().get("end to end", {}).items():
        for runtime, run in runs.items():
            spent = [f"{run['milliseconds'][stage]:.1f}" for stage in ("decode", "network")]
            rates = [f"{run['images_per_cpu_second']:.1f}", f"{run['times_torch']:.2f}"]
            lines.append([network, runtime, *spent, *rates])
    return table(head, lines)


MAKERS = {
    "scaling": scaling,
    "clusters": clusters,
    "normal": normal,
    "tries_default": lambda: tries("default"),
    "tries_mild": lambda: tries("mild"),
    "study": study,
    "gain": gain,
    "efficiency": lambda: efficiency(128),
    "efficiency_findings": lambda: efficiency_findings(128),
    "efficiency_gain": lambda: efficiency_gain(128),
    "efficiency_96": lambda: efficiency(96),
    "efficiency_gain_96": lambda: efficiency_gain(96),
    "runtimes": runtimes,
    "stages": stages,
    "end_to_end": end_to_end,
}
"""Name of a table in the page -> what makes it."""


def fill(page: str) -> str:
    """The page with every marked table as the results have it now."""
    return fill_marked(page, "table", {name: make() for name, make in MAKERS.items()})


def main() -> None:
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
