"""DICOMweb against a real Orthanc: a worklist is fetched once, credentials come from the environment."""

from __future__ import annotations

import itertools
import logging
import threading
from pathlib import Path

import pydicom
import pytest
from inference.orthanc import Orthanc, write_radiographs

from monai_simclr.inference.dicomweb import PASSWORD, TOKEN, USER, Worklist, is_dicomweb, store_results

pytest.importorskip("dicomweb_client", reason="dicomweb-client is not installed: pip install 'monai-simclr[pacs]'")


@pytest.fixture(scope="module")
def radiographs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_radiographs(tmp_path_factory.mktemp("dicom") / "phantoms", patients=4)


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory, radiographs: list[Path]):
    server = Orthanc(tmp_path_factory.mktemp("orthanc") / "server")
    assert list(store_results(server.web, radiographs)) == radiographs
    yield server
    server.stop()


def read(path: Path) -> pydicom.Dataset:
    return pydicom.dcmread(path)


def test_a_worklist_is_every_radiograph_once_with_the_same_pixels(orthanc, radiographs, tmp_path):
    paths, failed = Worklist(orthanc.web, tmp_path).fetch()
    assert failed == 0
    sent = {read(path).SOPInstanceUID: read(path).PixelData for path in radiographs}
    assert {path.stem: read(path).PixelData for path in paths} == sent
    changed = {path: path.stat().st_mtime_ns for path in paths}
    again, _ = Worklist(orthanc.web, tmp_path).fetch()
    assert {path: path.stat().st_mtime_ns for path in again} == changed


def test_four_studies_are_fetched_at_a_time(orthanc, tmp_path, monkeypatch):
    worklist, together, seen = Worklist(orthanc.web, tmp_path), threading.Barrier(4, timeout=20), []
    search = worklist._search

    def meet(name, *uids, **options):
        if name == "search_for_series":
            together.wait()
        found = search(name, *uids, **options)
        return itertools.islice(found, 4) if name == "search_for_studies" else found

    monkeypatch.setattr(worklist, "_search", meet)
    paths, failed = worklist.fetch(lambda *counts: seen.append(counts))
    assert len({path.parent for path in paths}) == 4
    assert failed == 0
    assert seen == [(number, 4, 0) for number in (1, 2, 3, 4)]


def test_a_look_asks_only_for_what_has_changed(radiographs, tmp_path_factory, tmp_path, monkeypatch):
    orthanc = Orthanc(tmp_path_factory.mktemp("changing") / "server")
    list(store_results(orthanc.web, radiographs))
    worklist, asked = Worklist(orthanc.web, tmp_path), []
    search = worklist._search
    monkeypatch.setattr(
        worklist, "_search", lambda name, *uids, **options: asked.append(name) or search(name, *uids, **options)
    )
    first, _ = worklist.fetch()
    assert asked.count("search_for_series") == len({path.parent for path in first})
    for change, studies in (
        (lambda: None, 0),
        (first[0].unlink, 1),
        (lambda: _add_film(orthanc, first[0], tmp_path), 1),
    ):
        change()
        asked.clear()
        paths, failed = worklist.fetch()
        assert failed == 0
        assert asked.count("search_for_series") == studies
        assert all(path.is_file() for path in paths)
    assert len(paths) == len(first) + 1
    monkeypatch.setattr("monai_simclr.inference.dicomweb._LOOK_AGAIN", -1.0)
    asked.clear()
    assert worklist.fetch() == (paths, 0)
    assert asked.count("search_for_series") == len({path.parent for path in first})
    orthanc.stop()


def _add_film(orthanc: Orthanc, film: Path, folder: Path) -> None:
    """Store one more instance in a film's study."""
    dataset = read(film)
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    dataset.save_as(folder / "more.dcm")
    assert list(store_results(orthanc.web, [folder / "more.dcm"]))


def test_the_query_and_the_modality_choose(orthanc, radiographs, tmp_path):
    patient = read(radiographs[0]).PatientID
    of_patient = [path for path in radiographs if read(path).PatientID == patient]
    paths, _ = Worklist(f"{orthanc.web}?PatientID={patient}", tmp_path / "one").fetch()
    assert sorted(path.stem for path in paths) == sorted(read(path).SOPInstanceUID for path in of_patient)
    assert Worklist(f"{orthanc.web}?PatientID=NOBODY", tmp_path / "none").fetch() == ([], 0)
    assert Worklist(orthanc.web, tmp_path / "ct", modalities=("CT",)).fetch() == ([], 0)


def test_more_matches_than_a_page_are_all_fetched(orthanc, radiographs, tmp_path, monkeypatch):
    monkeypatch.setattr("monai_simclr.inference.dicomweb._PAGE", 2)
    paths, _ = Worklist(orthanc.web, tmp_path).fetch()
    assert len({path.stem for path in paths}) == len(radiographs)


class _Service:
    """A service of studies without series, which gives `most` at a time, from the offset or always from the first."""

    def __init__(self, studies: int, most: int, pages: bool = True):
        self.studies = [{"0020000D": {"vr": "UI", "Value": [f"1.2.{number}"]}} for number in range(studies)]
        self.most, self.pages, self.looked_into = most, pages, set[str]()

    def search_for_studies(self, limit, offset, search_filters):
        start = offset if self.pages else 0
        return self.studies[start : start + min(limit, self.most)]

    def search_for_series(self, study, limit, offset):
        self.looked_into.add(study)
        return []


@pytest.mark.parametrize("most", [1, 50, 100])
def test_a_service_that_gives_fewer_matches_than_asked_for_is_asked_until_it_has_none(tmp_path, monkeypatch, most):
    service = _Service(120, most)
    monkeypatch.setattr("monai_simclr.inference.dicomweb._client", lambda address: service)
    assert Worklist("dicomweb+https://host/dicom-web", tmp_path).fetch() == ([], 0)
    assert len(service.looked_into) == 120


def test_a_service_that_cannot_be_asked_for_the_next_matches_is_left_with_a_warning(tmp_path, monkeypatch, caplog):
    service = _Service(120, 50, pages=False)
    monkeypatch.setattr("monai_simclr.inference.dicomweb._client", lambda address: service)
    assert Worklist("dicomweb+https://host/dicom-web", tmp_path).fetch() == ([], 0)
    assert len(service.looked_into) == 50
    assert "gives the same 50 matches again" in caplog.text


def test_a_query_with_a_key_twice_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"the query has ModalitiesInStudy more than once.*run once for each value"):
        Worklist("dicomweb+https://host/d?ModalitiesInStudy=DX&StudyDate=2026&ModalitiesInStudy=CR", tmp_path)


def test_credentials_come_from_the_environment(tmp_path, radiographs, monkeypatch):
    server = Orthanc(tmp_path / "server", users={"reader": "secret"})
    try:
        with pytest.raises(ConnectionError, match="401"):
            Worklist(server.web, tmp_path / "in").fetch()
        monkeypatch.setenv(USER, "reader")
        monkeypatch.setenv(PASSWORD, "secret")
        assert list(store_results(server.web, radiographs[:1])) == radiographs[:1]
        assert len(Worklist(server.web, tmp_path / "in").fetch()[0]) == 1
        monkeypatch.setenv(TOKEN, "a token goes first")
        with pytest.raises(ConnectionError, match="401"):
            Worklist(server.web, tmp_path / "in").fetch()
    finally:
        server.stop()


def test_a_password_in_the_address_is_refused_without_repeating_it(tmp_path):
    with pytest.raises(ValueError, match="no password in the address") as caught:
        Worklist("dicomweb+https://reader:secret@host/dicom-web", tmp_path)
    assert "secret" not in str(caught.value)
    with pytest.raises(ValueError, match="got 'https://host/dicom-web'"):
        Worklist("https://host/dicom-web", tmp_path)
    assert is_dicomweb("dicomweb+https://host/dicom-web")
    assert not is_dicomweb(Path("/archive"))


def test_a_service_that_is_not_there_is_an_error_with_its_address(tmp_path):
    with pytest.raises(ConnectionError, match=r"http://127\.0\.0\.1:9/dicom-web"):
        Worklist("dicomweb+http://127.0.0.1:9/dicom-web", tmp_path).fetch()


def test_a_query_is_not_repeated_in_an_error(tmp_path):
    with pytest.raises(ConnectionError, match=r"does not answer the query") as caught:
        Worklist("dicomweb+http://127.0.0.1:9/dicom-web?PatientName=MUELLER^HANS", tmp_path).fetch()
    assert "MUELLER" not in str(caught.value)


def test_what_cannot_be_stored_is_named_and_can_be_tried_again(tmp_path, radiographs, caplog):
    with caplog.at_level(logging.WARNING, "monai_simclr"):
        assert list(store_results("dicomweb+http://127.0.0.1:9/dicom-web", radiographs[:1])) == []
    assert radiographs[0].name in caplog.text
