"""Which files of a folder are ready to be predicted, look after look, while files come, change and go."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from monai_simclr.data.pseudonyms import keyed_hash
from monai_simclr.inference import list_radiographs
from monai_simclr.inference.journal import file_stamp
from monai_simclr.runtime.distributed import rank, world_size

logger = logging.getLogger("monai_simclr")

_SETTLED = 5.0
"""Seconds for which a file must not have changed before it is read from a watched folder."""


class Arrivals:
    """The files without a row, or changed since.

    Once, it is every such file, one that is gone meanwhile included: its row has the reason. In a watched folder a file
    comes up when it has not changed for five seconds, or for `watch` if that is less, by its own time or by ours (the
    clock of a file server may be ahead). Whatever is read too early changes later and comes up again. A file that is
    gone does not come up, and a folder that is gone has no files until it is back.

    Args:
        dataset_dir: folder, or paths of files.
        done: gives the stamps of the files that have a row, by their hashes, as a journal's `done` does.
        key: of the hashes of paths.
        watch: seconds between two looks; 0 looks once.
    """

    def __init__(
        self,
        dataset_dir: str | Path | Sequence[str | Path],
        done: Callable[[], Mapping[str, str]],
        key: str,
        watch: float = 0.0,
    ) -> None:
        self.dataset_dir, self.done, self.key, self.watch = dataset_dir, done, key, watch
        self._since: dict[str, tuple[str, float]] = {}
        self._looked = self._lost = False

    def look(self) -> list[Mapping[str, str]]:
        """Records of the files to predict now, each file once; of several ranks, this one's share.

        Raises:
            FileNotFoundError: if there is no folder at the first look, or no file when it is looked at once.
        """
        named = {keyed_hash(self.key, str(Path(one["image"]).absolute())): one for one in self._listed()}
        done, mine = self.done(), list(named)[rank() :: world_size()]
        if self.watch:  # places in the list move as files come, hashes do not
            mine = [name for name in named if int(name, 16) % world_size() == rank()]
        stamps = {name: _stamp_of(named[name]["image"]) for name in mine}
        found = [name for name in mine if stamps[name] is None or stamps[name] != done.get(name)]
        if self.watch:
            found = self._settled({name: stamp for name in found if (stamp := stamps[name]) is not None}, named)
        return [named[name] for name in found]

    def _listed(self) -> list[dict[str, str]]:
        try:
            found = list_radiographs(self.dataset_dir, empty=self.watch > 0)
        except OSError as error:
            if not self._looked:
                raise
            if not self._lost:
                logger.warning(f"the watched folder cannot be listed ({error}); waiting until it can be")
            self._lost = True
            return []
        self._looked, self._lost = True, False
        return found

    def _settled(self, stamps: Mapping[str, str], named: Mapping[str, Mapping[str, str]]) -> list[str]:
        """Names whose files have not changed for long enough."""
        wait, now = min(self.watch, _SETTLED), time.monotonic()
        before = self._since
        self._since = {
            name: before[name] if name in before and before[name][0] == stamp else (stamp, now)
            for name, stamp in stamps.items()
        }
        return [
            name
            for name, (_, since) in self._since.items()
            if now - since > wait or _seconds_unchanged(named[name]["image"]) > wait
        ]


def _stamp_of(path: str) -> str | None:
    """Size and time of a file, None if it is gone."""
    try:
        return file_stamp(path)
    except OSError:
        return None


def _seconds_unchanged(path: str) -> float:
    """Seconds since a file's own time of change; below 0 if that is in the future, or the file is gone."""
    try:
        return time.time() - Path(path).stat().st_mtime
    except OSError:
        return -1.0
