"""Which files of a folder are ready to be predicted, look after look, while files come, change and go."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from monai_simclr.data.decoding import file_identity
from monai_simclr.data.pseudonyms import keyed_hash
from monai_simclr.inference import list_radiographs
from monai_simclr.inference.dataset import file_stamp

logger = logging.getLogger("monai_simclr")

_UNCHANGED_SECONDS = 5.0
"""How long a file must not have changed before it is read from a watched folder."""


class Arrivals:
    """The files that have no row, or have changed since.

    A single look gives every such file, including one that has disappeared meanwhile: its row has the reason. A watched
    folder gives a file when it has not changed for five seconds, or for `watch` if that is less, by its own time or by
    ours (the clock of a file server may be ahead). A file that is read too early changes later and is given again. A
    file that has disappeared is not given, and a folder that has disappeared has no files until it is back.

    Args:
        dataset_dir: folder, or paths of files.
        done: returns the stamps of the files that have a row, by their hashes, as `Journal.done` does.
        key: of the hashes of paths.
        watch: seconds between two looks; 0 looks once.

    Attributes:
        seconds: how long the last look took.
    """

    def __init__(
        self,
        dataset_dir: str | Path | Sequence[str | Path],
        done: Callable[[], Mapping[str, str]],
        key: str,
        watch: float = 0.0,
    ) -> None:
        self.dataset_dir, self.done, self.key, self.watch = dataset_dir, done, key, watch
        self.seconds = 0.0
        self._since: dict[str, tuple[tuple[int, int], float]] = {}
        self._looked = self._lost = False

    def look(self) -> list[Mapping[str, str]]:
        """Records of the files to predict now, each file once.

        Raises:
            FileNotFoundError: if there is no folder at the first look, or no file at a single look.
        """
        began = time.monotonic()
        records = {keyed_hash(self.key, str(Path(one["image"]).absolute())): one for one in self._listed()}
        done, identities = self.done(), {name: file_identity(one["image"]) for name, one in records.items()}
        stamps = {name: file_stamp(identity) for name, identity in identities.items()}
        new = [name for name in records if not stamps[name] or stamps[name] != done.get(name)]
        if self.watch:
            new = self._unchanged({name: identities[name] for name in new if stamps[name]})
        self.seconds = time.monotonic() - began
        return [records[name] for name in new]

    def _listed(self) -> list[dict[str, str]]:
        try:
            records = list_radiographs(self.dataset_dir, may_be_empty=self.watch > 0)
        except OSError as error:
            if not self._looked:
                raise
            if not self._lost:
                logger.warning(f"the watched folder cannot be listed ({error}); waiting until it can be")
            self._lost = True
            return []
        self._looked, self._lost = True, False
        return records

    def _unchanged(self, identities: Mapping[str, tuple[int, int]]) -> list[str]:
        """Names of the files that have not changed for long enough."""
        wait, now, clock = min(self.watch, _UNCHANGED_SECONDS), time.monotonic(), time.time()
        before = self._since
        self._since = {
            name: before[name] if name in before and before[name][0] == identity else (identity, now)
            for name, identity in identities.items()
        }
        return [
            name
            for name, (identity, since) in self._since.items()
            if now - since > wait or clock - identity[1] / 1e9 > wait
        ]
