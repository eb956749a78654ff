"""A DICOM storage SCP: radiographs that a PACS or a modality sends become whole studies in a watched folder.

Needs the extra ``pacs`` (pynetdicom). Only receiving happens here; predictions are made by whoever watches the folder.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from monai_simclr.runtime.extras import import_extra
from monai_simclr.runtime.files import lacks_space, sync
from monai_simclr.runtime.locks import locked

if TYPE_CHECKING:
    from pynetdicom.association import Association
    from pynetdicom.events import Event

logger = logging.getLogger("monai_simclr")

SUCCESS, OUT_OF_RESOURCES, CANNOT_UNDERSTAND = 0x0000, 0xA700, 0xC000
"""Status codes of C-STORE (PS3.4 Annex B.2.3)."""

_PDU = 1 << 17
"""Largest part of an instance that a sender may send at once: DCMTK's maximum; pynetdicom's 16 KiB take longer."""

_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_STUDY = 0x0020000D


class Receiver:
    """Receives instances by C-STORE and answers C-ECHO (PS3.4 Annexes A and B).

    An instance is acknowledged when it is on the disk under its final name in ``receiving/STUDY``, so nothing that a
    sender was told to be stored is lost. A study moves to ``incoming/STUDY`` when it has been quiet; what arrives later
    follows it. What an earlier process had not moved yet is moved by the next one. An instance that is sent again
    replaces the earlier one.

    Args:
        folder: of ``receiving`` and ``incoming``, on one file system.
        port: TCP port; 0 lets the system choose one (`port` has it after `start`).
        ae_title: our application entity title, at most 16 characters; associations that call another are rejected.
        host: address to listen on.
        allowed: AE titles that may send; empty for all.
        quiet_seconds: time without a new instance after which a study is complete.
        min_free_bytes: room that must stay on the disk; below it the status 0xA700 (out of resources) tells the sender
            to keep the instance and try again.
        max_bytes: longest instance; the association of a longer one is aborted.
        max_associations: senders at a time; more are rejected (local limit exceeded).

    Raises:
        ModuleNotFoundError: without pynetdicom.
        ValueError: if `ae_title` is empty or too long.
        FileExistsError: from `start`, if another process receives into the same folder.
        OSError: from `start`, if the port cannot be listened on.

    Example:
        >>> from tempfile import mkdtemp
        >>> with Receiver(mkdtemp(), port=0) as receiver:
        ...     receiver.incoming.name, receiver.port > 0
        ('incoming', True)
    """

    def __init__(
        self,
        folder: str | Path,
        port: int = 11112,
        ae_title: str = "SIMCLR",
        host: str = "127.0.0.1",
        allowed: Sequence[str] = (),
        quiet_seconds: float = 10.0,
        min_free_bytes: int = 10**9,
        max_bytes: int = 512 << 20,
        max_associations: int = 10,
    ) -> None:
        import_extra("pynetdicom", "pacs", "receiving DICOM")
        from pydicom.uid import AllTransferSyntaxes
        from pynetdicom.ae import ApplicationEntity
        from pynetdicom.presentation import AllStoragePresentationContexts
        from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

        if not 1 <= len(ae_title.strip()) <= 16 or not ae_title.isascii():
            raise ValueError(f"an AE title has 1 to 16 ASCII characters, got {ae_title!r}")
        self.receiving, self.incoming = Path(folder) / "receiving", Path(folder) / "incoming"
        self.host, self.port = host, port
        self.quiet_seconds, self.min_free_bytes, self.max_bytes = quiet_seconds, min_free_bytes, max_bytes
        self.stored = self.refused = 0
        self._entity = ApplicationEntity(ae_title=ae_title.strip())
        self._entity.require_called_aet = True
        self._entity.require_calling_aet = list(allowed)
        self._entity.maximum_associations = max_associations
        self._entity.network_timeout = 60
        self._entity.maximum_pdu_size = _PDU
        for context in AllStoragePresentationContexts:
            self._entity.add_supported_context(str(context.abstract_syntax), list(AllTransferSyntaxes))
        self._entity.add_supported_context(Verification)
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._last: dict[str, float] = {}
        self._length: WeakKeyDictionary[Association, int] = WeakKeyDictionary()
        self._mover = threading.Thread(target=self._move_when_quiet, name="move studies", daemon=True)

    def __enter__(self) -> Receiver:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listen, in threads of its own."""
        for folder in (self.receiving, self.incoming):
            folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            stack.enter_context(locked(self.receiving / "lock", str(self.receiving.parent)))
            self._listen()
            self._held = stack.pop_all()
        self._mover.start()
        logger.info(f"{self._entity.ae_title} receives on {self.host}:{self.port}; studies go to {self.incoming}")

    def _listen(self) -> None:
        from pynetdicom import evt

        for left in self.receiving.glob("*/*.part"):  # a sender was not told that these are stored
            left.unlink()
        self._last = {path.name: time.monotonic() for path in self.receiving.iterdir() if path.is_dir()}
        handlers: list[Any] = [(evt.EVT_C_STORE, self._store), (evt.EVT_DATA_RECV, self._count)]
        try:
            self._server = self._entity.start_server((self.host, self.port), block=False, evt_handlers=handlers)
        except OSError as error:
            raise OSError(
                error.errno,
                f"cannot listen on {self.host}:{self.port} ({error.strerror}); choose another --port or --host",
            ) from error
        self.port = int(self._server.server_address[1])  # type: ignore[union-attr]

    def stop(self) -> None:
        """Stop listening; studies that are not complete stay for the next start."""
        self._stop.set()
        self._entity.shutdown()
        self._mover.join()
        self._held.close()

    def _count(self, event: Event) -> None:
        """Abort an association whose instance is longer than allowed, before it fills the memory."""
        length = self._length[event.assoc] = self._length.get(event.assoc, 0) + len(event.data)
        if length > self.max_bytes:
            logger.warning(
                f"an instance of {_sender(event)} has more than {self.max_bytes:,} bytes; association aborted"
            )
            self.refused += 1
            event.assoc.abort()

    def _store(self, event: Event) -> int:
        if self._length.pop(event.assoc, 0) > self.max_bytes:  # the whole of it was on its way already
            return OUT_OF_RESOURCES
        try:
            instance = str(event.request.AffectedSOPInstanceUID)  # type: ignore[union-attr]
            study = str(event.dataset[_STUDY].value)
        except Exception as error:  # whatever pydicom raises over a header that was sent to us
            logger.warning(f"an instance of {_sender(event)} has no readable study ({error}); refused")
            return self._refuse(CANNOT_UNDERSTAND)
        if not all(len(uid) <= 64 and _UID.fullmatch(uid) for uid in (instance, study)):
            logger.warning(f"an instance of {_sender(event)} has UIDs that are not valid (PS3.5 section 9.1); refused")
            return self._refuse(CANNOT_UNDERSTAND)
        try:
            content = event.encoded_dataset()
            free = shutil.disk_usage(self.receiving).free
            if free - len(content) < self.min_free_bytes:
                logger.error(f"{free:,} bytes are free in {self.receiving}; {_sender(event)} is told to wait (0xA700)")
                return self._refuse(OUT_OF_RESOURCES)
            self._write(study, instance, content)
        except OSError as error:
            what = "the disk is full" if lacks_space(error) else str(error)
            logger.error(f"cannot store an instance in {self.receiving}: {what}; {_sender(event)} is told so (0xA700)")
            return self._refuse(OUT_OF_RESOURCES)
        self.stored += 1
        return SUCCESS

    def _refuse(self, status: int) -> int:
        self.refused += 1
        return status

    def _write(self, study: str, instance: str, content: bytes) -> None:
        """Whole or not at all, and on the disk before the sender hears of it."""
        part = self.receiving / study / f"{instance}.{threading.get_ident()}.part"
        try:
            with self._lock:
                part.parent.mkdir(exist_ok=True)
                self._last[study] = time.monotonic()
            sync(self.receiving)  # the study's folder, if it is new
            with part.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            with self._lock:
                os.replace(part, part.with_name(f"{instance}.dcm"))
                self._last[study] = time.monotonic()
                sync(part.parent)
        except OSError:
            part.unlink(missing_ok=True)
            raise

    def _move_when_quiet(self) -> None:
        while not self._stop.wait(min(1.0, self.quiet_seconds / 2)):
            now = time.monotonic()
            for study in [name for name, last in self._last.items() if now - last >= self.quiet_seconds]:
                try:
                    self._move(study)
                except OSError as error:
                    logger.error(f"cannot move a study to {self.incoming}: {error}; trying again")
                    self._last[study] = now

    def _move(self, study: str) -> None:
        with self._lock:
            if time.monotonic() - self._last[study] < self.quiet_seconds:
                return
            source, target = self.receiving / study, self.incoming / study
            target.mkdir(exist_ok=True)
            for file in source.glob("*.dcm"):
                os.replace(file, target / file.name)
            if not any(source.iterdir()):
                source.rmdir()
                del self._last[study]


def _sender(event: Event) -> str:
    requestor = event.assoc.requestor
    return f"{requestor.ae_title} ({requestor.address})"
