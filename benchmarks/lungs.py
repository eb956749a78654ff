"""How well the lungs' box is found on real masks: the cascade beside the whole image, the prior box and thresholds.

Run: python benchmarks/lungs.py --cxr DIR     (two minutes on one core; prints the tables, writes results/lungs.json)

The cascade is scored only on patients that it was not fitted on: five folds by patient over both sets, within a set
alone, and fitted on the other set alone.

    box        what is predicted, tight; its IoU is with the tight box of the mask
    crop       the box that `LungCrop` cuts: the predicted box with the margin (the same for every method that predicts)
    coverage   share of the mask's pixels that lie in the crop
    area       share of the image that the crop keeps
    failures   images where the method gave up, and the prior box was scored in its place
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from lungs_data import MaskedSet, read_masked_sets
from lungs_fit import COPIES, Lessons, fit, lessons, no_chest, overlap
from lungs_peers import otsu, thresholds
from sklearn.model_selection import GroupKFold

from monai_simclr.ops import PRIOR_LUNG_BOX, locate_lungs, widened
from monai_simclr.ops.lung_cascade import LungCascade, reduced
from monai_simclr.ops.lungs import MIN_FIT
from monai_simclr.runtime.files import write_json
from monai_simclr.transforms import LungCrop

MARGIN = LungCrop().margin
PRIOR, SHIPPED = "prior box (leave-one-out mean)", "**cascade, fitted on both sets**"
MARGINS = (0.0, 0.02, 0.03, 0.05, 0.08)
FOLDS, TIMED_SIZE = 5, 256


class Answer(NamedTuple):
    """What a method says of every image of a set."""

    boxes: np.ndarray
    failed: np.ndarray
    margin: float = MARGIN


def fixed(data: MaskedSet, box: np.ndarray | tuple[float, ...], margin: float) -> Answer:
    """The same box for every image, or one row an image."""
    return Answer(np.broadcast_to(box, data.boxes.shape), np.zeros(len(data.boxes), bool), margin)


def each(images: Sequence[np.ndarray], find: Callable[[np.ndarray], tuple[np.ndarray, bool]]) -> Answer:
    """A method image by image."""
    boxes, found = zip(*(find(image) for image in images), strict=True)
    return Answer(np.stack(boxes), ~np.array(found))


def cascaded(cascade: LungCascade) -> Callable[[np.ndarray], tuple[np.ndarray, bool]]:
    """A fitted cascade with the rule of `locate_lungs`: the prior box where it does not trust itself."""

    def find(image: np.ndarray) -> tuple[np.ndarray, bool]:
        box, confidence = cascade.locate(image.astype(np.float32))
        return (box, True) if confidence >= MIN_FIT else (np.array(PRIOR_LUNG_BOX), False)

    return find


def held_out(
    name: str, sets: dict[str, MaskedSet], taught: dict[str, Lessons], others: bool, stages: int = 4
) -> Answer:
    """Answers for one set from cascades of the other patients of that set, and of the other set too if `others`."""
    data = sets[name]
    boxes, failed = np.empty_like(data.boxes), np.empty(len(data.boxes), bool)
    for train, test in GroupKFold(FOLDS).split(data.boxes, groups=data.patients):
        lesson = [taught[name].of(train)] + [taught[other] for other in taught if others and other != name]
        answer = each([data.images[i] for i in test], cascaded(fit(lesson, stages)))
        boxes[test], failed[test] = answer.boxes, answer.failed
    return Answer(boxes, failed)


def answers(name: str, sets: dict[str, MaskedSet], taught: dict[str, Lessons]) -> Iterator[tuple[str, Answer]]:
    """Every row of the table for one set."""
    data, n = sets[name], len(sets[name].boxes)
    others = [lesson for other, lesson in taught.items() if other != name]
    yield "whole image", fixed(data, (0.0, 0.0, 1.0, 1.0), 0.0)
    leave_one_out = (data.boxes.sum(0) - data.boxes) / (n - 1)
    yield "prior box (leave-one-out mean), no margin", fixed(data, leave_one_out, 0.0)
    yield PRIOR, fixed(data, leave_one_out, MARGIN)
    yield "`PRIOR_LUNG_BOX`", fixed(data, PRIOR_LUNG_BOX, MARGIN)
    yield "Otsu, two largest dark regions", each(data.images, otsu)
    yield "eleven thresholds", each(data.images, thresholds)
    yield "HOG + ridge (the first stage alone)", held_out(name, sets, taught, others=True, stages=1)
    yield "cascade, fitted within the set", held_out(name, sets, taught, others=False)
    yield "cascade, fitted on the other set", each(data.images, cascaded(fit(others)))
    yield SHIPPED, held_out(name, sets, taught, others=True)


def gain(answer: Answer, baseline: Answer, data: MaskedSet) -> tuple[float, float, float]:
    """Mean IoU above that of a baseline, with its 95 % interval from resampling patients."""
    better = overlap(answer.boxes, data.boxes) - overlap(baseline.boxes, data.boxes)
    _, patient = np.unique(data.patients, return_inverse=True)
    sums, counts = np.bincount(patient, better), np.bincount(patient)
    chosen = np.random.RandomState(0).randint(0, len(counts), (2000, len(counts)))
    low, high = np.percentile(sums[chosen].sum(1) / counts[chosen].sum(1), [2.5, 97.5])
    return float(better.mean()), float(low), float(high)


def by_group(answer: Answer, data: MaskedSet) -> dict[str, dict[str, float]]:
    """Scores of each group of a set."""
    rows = {}
    for group in np.unique(data.groups):
        of = np.flatnonzero(data.groups == group)
        part = data._replace(boxes=data.boxes[of], masks=[data.masks[i] for i in of])
        rows[f"{group} ({len(of)})"] = score(Answer(answer.boxes[of], answer.failed[of]), part)
    return rows


def by_margin(answer: Answer, data: MaskedSet) -> dict[str, tuple[float, float]]:
    """5th percentile of the coverage, and area, for margins from none to wide."""
    rows = {str(margin): score(answer._replace(margin=margin), data) for margin in MARGINS}
    return {margin: (row["coverage_p5"], row["area"]) for margin, row in rows.items()}


def score(answer: Answer, data: MaskedSet) -> dict[str, float]:
    """One row of the table."""
    crops = widened(answer.boxes, answer.margin)
    ious = overlap(answer.boxes, data.boxes)
    kept = np.array([kept_share(crop, mask) for crop, mask in zip(crops, data.masks, strict=True)])
    area = (crops[:, 2:] - crops[:, :2]).prod(1)
    return {
        "iou": ious.mean(),
        "iou_p10": np.percentile(ious, 10),
        "coverage": kept.mean(),
        "coverage_p5": np.percentile(kept, 5),
        "coverage_min": kept.min(),
        "area": area.mean(),
        "area_max": area.max(),
        "margin": answer.margin,
        "failures": answer.failed.mean(),
    }


def kept_share(crop: np.ndarray, mask: np.ndarray) -> float:
    """Share of a mask's pixels whose centers lie in a box."""
    rows, columns = np.nonzero(mask)
    x, y = (columns + 0.5) / mask.shape[1], (rows + 0.5) / mask.shape[0]
    return float(((x >= crop[0]) & (x <= crop[2]) & (y >= crop[1]) & (y <= crop[3])).mean())


def mistaken(name: str, sets: dict[str, MaskedSet], taught: dict[str, Lessons]) -> float:
    """Share of pictures without an upright chest (turned, upside down, a part magnified, noise) that pass as lungs."""
    data, passed = sets[name], []
    for train, test in GroupKFold(FOLDS).split(data.boxes, groups=data.patients):
        find = cascaded(fit([taught[name].of(train)] + [taught[other] for other in taught if other != name]))
        random = np.random.RandomState(1)
        pictures = (no_chest(reduced(data.images[i].astype(np.float32)), random) for i in test)
        passed += [find(picture)[1] for picture in pictures]
    return float(np.mean(passed))


def milliseconds(images: list[np.ndarray]) -> dict[str, float]:
    """CPU time of `locate_lungs` an image at 256 px, one thread, one image a call: median and 95th percentile."""
    tensors = [torch.from_numpy(cv2.resize(image, (TIMED_SIZE, TIMED_SIZE)))[None, None] for image in images]
    times = []
    for image in [tensors[0], *tensors]:
        start = time.process_time()
        locate_lungs(image)
        times.append(1000 * (time.process_time() - start))
    return {"median": float(np.median(times[1:])), "p95": float(np.percentile(times[1:], 95))}


def table(scores: dict[str, dict[str, float]]) -> str:
    """The scores of a set in Markdown."""
    lines = [
        "| | box IoU mean / p10 | coverage mean / p5 / min | area mean / max | failures |",
        "|---|---|---|---|---|",
    ]
    for name, s in scores.items():
        kept = f"{s['coverage']:.3f} / {s['coverage_p5']:.3f} / {s['coverage_min']:.3f}"
        iou, area = f"{s['iou']:.3f} / {s['iou_p10']:.3f}", f"{s['area']:.2f} / {s['area_max']:.2f}"
        lines.append(f"| {name} | {iou} | {kept} | {area} | {100 * s['failures']:.1f} % |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cxr", type=Path, required=True, help="folder with manifest.csv")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/lungs.json")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    sets = read_masked_sets(arguments.cxr)
    timed = milliseconds([image for data in sets.values() for image in data.images[:150]])
    print(f"{timed['median']:.2f} ms an image at {TIMED_SIZE} px (95th percentile {timed['p95']:.2f})\n", flush=True)
    taught = {name: lessons(data, COPIES[name]) for name, data in sets.items()}
    results: dict[str, Any] = {"margin": MARGIN, "milliseconds": timed, "where": _where(), "sets": {}}
    for name, data in sets.items():
        given = dict(answers(name, sets, taught))
        scores = {row: score(answer, data) for row, answer in given.items()}
        cascades = {row: answer for row, answer in given.items() if "cascade" in row}
        more = {
            "gains": {row: gain(answer, given[PRIOR], data) for row, answer in cascades.items()},
            "groups": by_group(given[SHIPPED], data),
            "margins": {row: by_margin(answer, data) for row, answer in cascades.items()},
            "no_chest_accepted": mistaken(name, sets, taught),
        }
        counts = {"images": len(data.boxes), "patients": len(set(data.patients))}
        results["sets"][name] = {**counts, "scores": scores, **more}
        print(f"{name}: {len(data.boxes)} images of {len(set(data.patients))} patients, margin {MARGIN}\n")
        print(table(scores), table(more["groups"]), sep="\n\n", end="\n\n")
        for row, (mean, low, high) in more["gains"].items():
            kept = "; ".join(f"{margin}: {p5:.3f}, {area:.2f}" for margin, (p5, area) in more["margins"][row].items())
            print(f"{row}: IoU above the prior box {mean:.3f} [{low:.3f}, {high:.3f}]; margin: p5, area: {kept}")
        print(f"pictures without an upright chest that pass: {100 * more['no_chest_accepted']:.1f} %\n", flush=True)
    arguments.out.parent.mkdir(exist_ok=True)
    write_json(arguments.out, results, default=float)


def _where() -> dict[str, Any]:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    versions = {library.__name__: library.__version__ for library in (np, cv2, torch)}
    return {"commit": commit.stdout.strip(), "processor": platform.processor() or platform.machine(), **versions}


if __name__ == "__main__":
    main()
