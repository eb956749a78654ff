"""DICOMweb: fetch the radiographs that a query finds (QIDO-RS, WADO-RS), store results (STOW-RS). PS3.18 section 10.

Needs the extra ``pacs`` (dicomweb-client).
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit, urlunsplit

import pydicom

from monai_simclr.runtime.extras import import_extra
from monai_simclr.runtime.files import write_atomically
from monai_simclr.runtime.progress import Progress

logger = logging.getLogger("monai_simclr")

SCHEMES = ("dicomweb+https", "dicomweb+http")
TOKEN, USER, PASSWORD = (f"MONAI_SIMCLR_DICOMWEB_{name}" for name in ("TOKEN", "USER", "PASSWORD"))
"""Environment variables of the credentials."""

_PAGE = 100
_AT_A_TIME = 4  # studies: most of the time is waiting for the service
_LOOK_AGAIN = 600.0  # seconds after which a study is looked into, changed or not


def is_dicomweb(address: object) -> bool:
    """Whether an address is that of a DICOMweb service, ``dicomweb+https://HOST/PATH?QUERY``."""
    return str(address).startswith(tuple(f"{scheme}://" for scheme in SCHEMES))


class Worklist:
    """The radiographs that a query of a DICOMweb service finds, as files.

    Args:
        address: ``dicomweb+https://HOST/dicom-web?StudyDate=20260101-&ModalitiesInStudy=DX``; the query is that of a
            search for studies (PS3.18 section 10.6); without one, every study is asked for.
        folder: where the files go, as ``STUDY/SOP_INSTANCE.dcm``; what is there already is not fetched again.
        modalities: of the series that are fetched.

    Credentials come from the environment: a bearer token (``MONAI_SIMCLR_DICOMWEB_TOKEN``), or user and password
    (``MONAI_SIMCLR_DICOMWEB_USER``, ``MONAI_SIMCLR_DICOMWEB_PASSWORD``). The certificate of the service is verified.

    Raises:
        ModuleNotFoundError: without dicomweb-client.
        ValueError: if the address holds a password, which every process list would show, or is not one of DICOMweb; if
            its query has a key twice.
    """

    def __init__(self, address: str, folder: str | Path, modalities: tuple[str, ...] = ("CR", "DX")) -> None:
        parts = urlsplit(address)
        if not is_dicomweb(address) or not parts.hostname:
            raise ValueError(f"an address of DICOMweb is dicomweb+https://HOST/PATH?QUERY, got {address!r}")
        if parts.username or parts.password:
            raise ValueError(
                f"no password in the address, where others can read it: set {TOKEN}, or {USER} and {PASSWORD}"
            )
        query = parse_qsl(parts.query, keep_blank_values=True)
        self.filters = dict(query)
        repeated = sorted(name for name, times in Counter(name for name, _ in query).items() if times > 1)
        if repeated:
            raise ValueError(
                f"the query has {', '.join(repeated)} more than once, and a service matches one value (PS3.18 "
                r"8.3.4.1); give it once, several UIDs as UID\UID, or run once for each value"
            )
        self.folder, self.modalities = Path(folder), modalities
        self.address = urlunsplit((parts.scheme.removeprefix("dicomweb+"), parts.netloc, parts.path, "", ""))
        self._client = _client(self.address)
        self._looked_into: dict[str, tuple[str, float, list[Path]]] = {}  # number of instances, when, their files

    def fetch(self, progress: Progress = lambda done, total, failed: None) -> tuple[list[Path], int]:
        """Fetch what is not there yet, from four studies at a time.

        The first call asks for every series and instance. Later ones ask for the studies, and look only into those
        whose number of instances has changed; into each at least every ten minutes, since an instance may have taken
        the place of another.

        Args:
            progress: called after each study that is looked into, with the instances that could not be fetched.

        Returns:
            Paths of all files of the worklist that are there, in order, and how many could not be fetched this time.

        Raises:
            ConnectionError: if the service cannot be reached, or refuses the query (says why).
        """
        failed, now = 0, time.monotonic()
        studies = {
            _value(study, "0020000D"): _value(study, "00201208")
            for study in self._search("search_for_studies", search_filters=self.filters)
        }
        due = [uid for uid, instances in studies.items() if self._is_due(uid, instances, now)]
        pool = ThreadPoolExecutor(_AT_A_TIME)
        try:
            for done, (uid, (found, lost)) in enumerate(
                zip(due, pool.map(self._fetch_study, due), strict=True), start=1
            ):
                self._looked_into[uid] = ("" if lost else studies[uid], now, found)
                failed += lost
                progress(done, len(due), failed)
        finally:
            pool.shutdown(cancel_futures=True)
        return [path for uid in studies for path in self._looked_into[uid][2]], failed

    def _is_due(self, study: str, instances: str, now: float) -> bool:
        before, when, found = self._looked_into.get(study, ("", now, []))
        return not instances or instances != before or now - when > _LOOK_AGAIN or not all(map(Path.is_file, found))

    def _fetch_study(self, study: str) -> tuple[list[Path], int]:
        paths, failed = [], 0
        for series in self._search("search_for_series", study):
            if _value(series, "00080060") not in self.modalities:
                continue
            uid = _value(series, "0020000E")
            for found in self._search("search_for_instances", study, uid):
                instance = _value(found, "00080018")
                path = self.folder / study / f"{instance}.dcm"
                if not path.is_file():
                    try:
                        dataset = self._client.retrieve_instance(study, uid, instance, media_types=_ANY_SYNTAX)
                    except Exception as error:  # HTTP errors, and whatever pydicom raises over what came
                        logger.warning(f"an instance of {self.address} could not be fetched: {error}")
                        failed += 1
                        continue
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with write_atomically(path) as file:
                        pydicom.dcmwrite(file, dataset, enforce_file_format=True)
                paths.append(path)
        return paths, failed

    def _search(self, name: str, *uids: str, **options: Any) -> Iterator[dict[str, Any]]:
        """All matches, page after page until one is empty: a service may give fewer than `limit` (PS3.18 8.3.4.4)."""
        offset, before = 0, list[dict[str, Any]]()
        while True:
            try:
                page = getattr(self._client, name)(*uids, limit=_PAGE, offset=offset, **options)
            except Exception as error:
                said = re.sub(r"\?\S*", "", str(error))  # the query may name a patient
                raise ConnectionError(f"{self.address} does not answer the query: {said}") from error
            if page and page == before:
                logger.warning(
                    f"{self.address} gives the same {len(page)} matches again when it is asked for the next ones: if "
                    "it has more of them, they are missed; ask for fewer, by a narrower query"
                )
            if not page or page == before:
                return
            yield from page
            offset, before = offset + len(page), page


def store_results(address: str, paths: Iterable[str | Path]) -> Iterator[Path]:
    """Store DICOM files (reports, secondary captures) at a service, one request each.

    Args:
        address: as of `Worklist`; its query does not matter.
        paths: DICOM files.

    Yields:
        Each of them once it is stored; others are named in the log and can be tried again.
    """
    client = _client(urlunsplit((*urlsplit(address.removeprefix("dicomweb+"))[:3], "", "")))
    for path in map(Path, paths):
        try:
            answer = client.store_instances([pydicom.dcmread(path)])
        except Exception as error:
            logger.warning(f"{path.name} could not be stored at {client.base_url}: {error}")
            continue
        if "FailedSOPSequence" in answer and answer.FailedSOPSequence:
            reason = answer.FailedSOPSequence[0].get("FailureReason", 0)
            logger.warning(f"{client.base_url} refused {path.name} (failure reason 0x{reason:04X})")
        else:
            yield path


_ANY_SYNTAX = (("application/dicom", "*"),)


def _client(address: str) -> Any:
    import_extra("dicomweb_client", "pacs", "DICOMweb")
    from dicomweb_client.api import DICOMwebClient
    from dicomweb_client.session_utils import create_session, create_session_from_user_pass

    if token := os.environ.get(TOKEN):
        session = create_session()
        session.headers["Authorization"] = f"Bearer {token}"
    elif user := os.environ.get(USER):
        session = create_session_from_user_pass(user, os.environ.get(PASSWORD, ""))
    else:
        session = create_session()
    client = DICOMwebClient(address, session=session)
    client.set_http_retry_params(max_attempts=3, wait_exponential_multiplier=200)
    return client


def _value(item: dict[str, Any], tag: str) -> str:
    """The first value of an attribute in the DICOM JSON model (PS3.18 Annex F)."""
    return str((item.get(tag, {}).get("Value") or [""])[0])
