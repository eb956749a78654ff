"""NIH ChestX-ray14: the publisher's table and lists to an image index; pixels are not read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from monai_simclr.data.columns import check_rows, map_values
from monai_simclr.data.findings import NIH14, canonical_finding, parse_findings
from monai_simclr.data.nih_names import patient_of_nih_image
from monai_simclr.data.sources import base
from monai_simclr.runtime.names import shown
from monai_simclr.runtime.tables import read_text

_TABLES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
_COLUMNS = ("Image Index", "Finding Labels", "Patient ID", "Patient Age", "Patient Gender", "View Position")


def read_nih(folder: str | Path) -> pd.DataFrame:
    """Image index of an NIH folder (Wang et al., CVPR 2017).

    Args:
        folder: with ``Data_Entry_2017.csv`` or ``Data_Entry_2017_v2020.csv`` (or ``.csv.gz``), the official lists
            ``train_val_list.txt`` and ``test_list.txt`` (or ``..._NIH.txt``), and the images in ``images/`` or in
            ``images_001/images/`` to ``images_012/images/``.

    Returns:
        The index. Patients are called NIH-00013, so that they are known in any archive that has them; where images are
        not called as NIH calls its own, they keep the numbers of the table. The official test list is the test split;
        one patient in eight of the official train_val list is val, by a hash of the patient's number, so that it never
        changes. Without lists `split` is "".
    """
    folder = Path(folder)
    table, file = base.read_publisher_table(
        folder, *_TABLES, needed=_COLUMNS, optional=("Follow-up #",), hint="see docs/how-to/nih.md"
    )
    labels = map_values(table["Finding Labels"], lambda text: list(parse_findings(text).values()), file)
    names = table["Image Index"].map(base.base_name)
    lists = {}
    for name in ("train_val", "test"):
        paths = [folder / f"{name}_list.txt", folder / f"{name}_list_NIH.txt"]
        lines = next((read_text(path).splitlines() for path in paths if path.is_file()), [])
        lists[name] = {base.base_name(line) for line in lines} - {""}
    in_test, in_train = names.isin(lists["test"]), names.isin(lists["train_val"])
    if any(lists.values()) and not (in_test | in_train).any():
        raise ValueError(
            f"the official lists in {shown(folder)} name none of the {len(names)} images of the table (the first is "
            f"{shown(names.iloc[0])}); are they lists of file names, one per line?"
        )
    train = np.where(table["Patient ID"].map(base.is_val_patient), "val", "train")
    return base.make_index(
        pd.DataFrame(np.array(labels.tolist()), columns=pd.Index(NIH14)),
        image=base.locate([folder / "images", *sorted(folder.glob("images_0*/images"))], table["Image Index"]),
        patient_id=[patient_of_nih_image(*row) for row in zip(names, table["Patient ID"], strict=True)],
        study_id=table["Patient ID"] + "_" + table["Follow-up #"],
        view_position=table["View Position"],
        sex=table["Patient Gender"],
        age=table["Patient Age"],
        split=np.where(in_test, "test", np.where(in_train, train, "")),
    )


def read_nih_boxes(folder: str | Path) -> pd.DataFrame:
    """The boxes that radiologists drew: ``BBox_List_2017.csv``. All of their images are in the official test list.

    Returns:
        One row per box: `image` (the file's name), `finding`, and `left, top, width, height` in pixels of the 1024 x
        1024 images, from the upper left corner. "Infiltrate" is called Infiltration, as in the labels.
    """
    table, file = base.read_publisher_table(folder, "BBox_List_2017.csv", needed=["Image Index", "Finding Label"])
    table = table.iloc[:, :6]  # by position, because the header "Bbox [x,y,w,h],,," splits at its own commas
    table.columns = pd.Index(["image", "finding", "left", "top", "width", "height"])
    numbers = table.iloc[:, 2:].apply(pd.to_numeric, errors="coerce")
    check_rows(numbers.notna().all(axis=1), "a box needs four numbers", file, table.iloc[:, 2:].apply(list, axis=1))
    return pd.concat([table["image"].map(base.base_name), table["finding"].map(canonical_finding), numbers], axis=1)


NIH = base.Source(
    "NIH ChestX-ray14",
    lambda folder: base.has_table(folder, *_TABLES),
    read_nih,
    "NIH ships 12 archives: are all of them unpacked there?",
)
