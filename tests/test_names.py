"""Names and tables as they are written: any name comes back, and nothing runs in a spreadsheet or breaks a line."""

from __future__ import annotations

import csv
import hmac
import io
import json
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import monai_simclr
from monai_simclr.cli.worklists import write_worklist
from monai_simclr.data import RadiographError
from monai_simclr.data.pseudonyms import keyed_hash
from monai_simclr.evaluation import Embeddings
from monai_simclr.runtime.exit_codes import format_error
from monai_simclr.runtime.files import write_json, write_text
from monai_simclr.runtime.names import escape, shown, unescape
from monai_simclr.runtime.tables import read_table, table_text, unescaped_text, write_rows, write_table

any_text = st.text(st.characters(), max_size=12) | st.text("='+-@\\xu;\n\r\t\udcfc\u2028 09a", max_size=8)


@settings(max_examples=500, deadline=None)
@given(any_text)
@example("M\udcfcller.dcm")
@example("'=1")
@example("\\xfc")
@example("'\\xfc")
@example("-0")
def test_any_text_survives_a_round_trip_and_is_written_as_one_line_of_utf8_that_no_spreadsheet_runs(text):
    cell = escape(text)
    assert unescape(cell) == text
    assert cell.encode() is not None
    assert not any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in cell)
    assert len(cell.splitlines()) <= 1
    assert cell.lstrip()[:1] not in tuple("=+@\uff1d\uff0b\uff0d\uff20")
    assert cell[:1] != "-" or float(cell) <= 0  # a number, "-0" included
    assert shown(text).encode() is not None
    assert len(shown(text).splitlines()) <= 1


@pytest.mark.parametrize("foreign", ["'s-Hertogenbosch/1.png", "'0012", "'", "'a\\x", "''"])
def test_foreign_text_that_begins_with_an_apostrophe_is_kept(foreign):
    assert unescape(foreign) == foreign or escape(unescape(foreign)) == foreign
    assert unescape(escape(foreign)) == foreign


def test_ordinary_text_and_numbers_are_written_as_they_are():
    table = pd.DataFrame({"image": ["a b/ü-1.png", "C:\\x.png"], "x": ["-0.5", "-1e-7"], "y": [-0.5, np.nan]})
    assert table_text(table) == table.to_csv(index=False)


def test_lists_in_cells_are_written_as_they_are():
    table = pd.DataFrame({"name": ["a", "b"], "interval": [[0.1, -0.2], [0.3, 0.4]]})
    assert table_text(table) == table.to_csv(index=False)


@settings(max_examples=100, deadline=None)
@given(st.lists(any_text, min_size=1, max_size=5), any_text)
def test_a_table_survives_a_round_trip_with_its_header(cells, title):
    table = pd.DataFrame({f"t{title}": cells, "n": [-0.5] * len(cells)})
    text = table_text(table)
    back = unescaped_text(pd.read_csv(io.StringIO(text), dtype={0: str, 1: float}, keep_default_na=False))
    assert back.iloc[:, 0].tolist() == cells
    assert back.columns[0] == f"t{title}"
    assert len(list(csv.reader(io.StringIO(text)))) == len(text.splitlines()) == len(cells) + 1


def test_no_module_writes_a_table_by_itself():
    ways = re.compile(r"\.to_csv\(|csv\.writer|DictWriter")
    root = Path(monai_simclr.__file__).parent.parent
    modules = [*root.glob("monai_simclr/**/*.py"), *root.glob("benchmarks/*.py")]
    found = {path.name for path in modules if ways.search(re.sub(r">>> .*", "", path.read_text("utf-8")))}
    assert found == {"tables.py"}


def test_every_way_to_write_a_table_escapes(tmp_path):
    rows = [["=HYPERLINK(1)", -0.5], ["+1", 2], ["@x", None], ["\tx", 1], ["-a", 1], ["M\udcfc", 1]]
    write_rows(tmp_path / "rows.csv", ["=image", "n"], rows)
    write_table(pd.DataFrame(rows, columns=["=image", "n"]), tmp_path / "table.csv")
    for name in ("rows.csv", "table.csv"):
        lines = (tmp_path / name).read_text("utf-8").splitlines()
        assert [line.split(",")[0] for line in lines] == [
            "'=image",
            "'=HYPERLINK(1)",
            "'+1",
            "'@x",
            "'\\tx",
            "'-a",
            "'M\\xfc",
        ]
        assert "-0.5" in lines[1]
        assert read_table(tmp_path / name)["=image"].tolist() == [row[0] for row in rows]


def test_embeddings_and_worklists_keep_odd_names(tmp_path):
    names = ["=1.png", "M\udcfc.png", "a\nb.png", "4.png"]
    index = pd.DataFrame({"image": names, "patient_id": ["@1", "-2", "00123", "'4"], "split": "train"})
    Embeddings(np.eye(4, dtype=np.float32), index).save(tmp_path / "e.npz")
    back = Embeddings.load(tmp_path / "e.npz").index
    assert back["image"].tolist() == names
    assert back["patient_id"].tolist() == ["@1", "-2", "00123", "'4"]
    path = write_worklist(tmp_path / "e.npz", 2, tmp_path / "list.csv")
    chosen = read_table(path)["image"].tolist()
    assert set(chosen) <= set(names)
    again = write_worklist(tmp_path / "e.npz", 2, tmp_path / "more.csv", labelled=path)
    assert set(read_table(again)["image"]) == set(names) - set(chosen)


def test_a_list_of_labelled_images_that_names_none_of_them_is_refused(tmp_path):
    index = pd.DataFrame({"image": ["a/1.png", "a/2.png"], "patient_id": ["1", "2"], "split": "train"})
    Embeddings(np.eye(2, dtype=np.float32), index).save(tmp_path / "e.npz")
    (tmp_path / "done.csv").write_text("image\nimages\\2.png\n", encoding="utf-16")
    write_worklist(tmp_path / "e.npz", 1, tmp_path / "list.csv", labelled=tmp_path / "done.csv")
    assert read_table(tmp_path / "list.csv")["image"].tolist() == ["a/1.png"]
    (tmp_path / "done.csv").write_text("image\n9.png\n")
    with pytest.raises(ValueError, match=r"done.csv: none of its 1 images is among the 2 embedded ones"):
        write_worklist(tmp_path / "e.npz", 1, tmp_path / "list.csv", labelled=tmp_path / "done.csv")


def test_json_and_pages_with_a_name_that_is_not_utf8_can_be_read_by_anyone(tmp_path):
    write_json(tmp_path / "a.json", {"M\udcfc": ["x\udcff", "\U0001f600", "\\udcfc", 1.5]})
    text = (tmp_path / "a.json").read_text("utf-8")
    assert json.loads(text) == {"M\\xfc": ["x\\xff", "\U0001f600", "\\udcfc", 1.5]}
    json.loads(text)["M\\xfc"][1].encode()
    write_text(tmp_path / "a.html", "<p>M\udcfcller</p>")
    assert (tmp_path / "a.html").read_text("utf-8") == "<p>M\\xfcller</p>"


def test_a_line_end_in_a_name_does_not_enter_a_message():
    error = RadiographError("has no pixels", "in/a\nERROR: all is lost\r\u2028.dcm")
    assert str(error) == "a\\nERROR: all is lost\\r\\u2028.dcm: has no pixels"
    assert format_error(ValueError("in/a\nb.dcm")) == "ValueError: in/a\\nb.dcm"


def test_names_that_differ_in_one_byte_have_hashes_that_differ():
    assert keyed_hash("key", "M\udcfc") != keyed_hash("key", "M\udcfd")
    assert keyed_hash("key", "Mü") == hmac.new(b"key", "Mü".encode(), "sha256").hexdigest()[:16]


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_command_prints_a_name_that_its_terminal_cannot_show(tmp_path, encoding):
    code = "from monai_simclr.cli import app as cli; cli.app = lambda: print('made M\\udcfc ü'); cli.main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env={"PYTHONIOENCODING": encoding})
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode(encoding) == {"utf-8": "made M\\xfc ü\n", "ascii": "made M\\xfc \\u00fc\n"}[encoding]
