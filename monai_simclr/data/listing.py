"""The files below a folder: links followed, each file once, and whatever is left out counted and named."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from monai_simclr.data.sources.wording import SPLIT_WORDS
from monai_simclr.runtime.names import shown
from monai_simclr.runtime.tables import hold_odd_names

logger = logging.getLogger("monai_simclr.data")

_ENDS = 1 << 15
"""Bytes at the start and at the end of two files that are compared: they hold identifiers, and compressed pixels."""


@dataclass
class Listing:
    """What lies below a folder.

    Attributes:
        paths: regular files, hidden ones apart, in order.
        left_out: the others, by the reason.
        followed: links to folders whose files are among `paths`.
    """

    paths: list[Path] = field(default_factory=list)
    left_out: dict[str, list[Path]] = field(default_factory=dict)
    followed: list[Path] = field(default_factory=list)

    def leave_out(self, reason: str, paths: Iterable[Path]) -> None:
        """Take paths out of the list, for a reason."""
        gone = list(paths)
        if gone:
            self.left_out.setdefault(reason, []).extend(gone)
            taken = set(gone)
            self.paths = [path for path in self.paths if path not in taken]

    def counts(self) -> dict[str, int]:
        """How many are left out, by reason."""
        return {reason: len(paths) for reason, paths in self.left_out.items()}


def list_files(folder: str | Path) -> Listing:
    """Every regular file below a folder, hidden files and folders apart.

    Links to folders are followed, after the folders that really lie there, so that a link to one of them is a double
    and left out; so is a link to a folder above, which would be a loop.

    Args:
        folder: where to look.

    Returns:
        The files, and what is left out: links to what is listed already, to folders above, to nothing; folders that
        cannot be opened; pipes, sockets and devices.
    """
    walk = _Walk(os.path.realpath(folder))
    walk.enter(os.fspath(folder), walk.root)
    while walk.folder_links:
        walk.follow(walk.folder_links.pop(min(range(len(walk.folder_links)), key=walk.folder_links.__getitem__)))
    walk.add_file_links()
    hold_odd_names([*walk.files, os.fspath(folder)])
    walk.found.paths = sorted(Path(path) for path in walk.files)
    return walk.found


def say_left_out(left_out: Mapping[str, Sequence[Path]], folder: str | Path) -> str:
    """A sentence with counts and the first name of every reason.

    Example:
        >>> say_left_out({"not DICOM": [Path("in/b.txt"), Path("in/a.txt")]}, "in")
        '2 files below in are left out: not DICOM (2, the first is a.txt)'
    """
    root = Path(folder)
    parts = []
    for reason, paths in left_out.items():
        first = min(paths)
        name = first.relative_to(root) if first.is_relative_to(root) else first
        parts.append(f"{reason} ({len(paths)}, the first is {shown(name)})")
    total = sum(map(len, left_out.values()))
    return f"{total} files below {shown(folder)} are left out: {'; '.join(parts)}"


def second_copies(paths: Sequence[Path], folder: str | Path) -> list[Path]:
    """Files of a data set that lies there twice, as ``chest_xray/chest_xray`` does when it was unpacked twice.

    A file is a second copy when the same file lies under the same name some folders higher up, or when its whole top
    folder has the same files under the same names in another top folder. Two files are the same when their sizes and
    both of their ends are.

    Args:
        paths: files below the folder.
        folder: of the data set.
    """
    by_parts = {path.relative_to(folder).parts: path for path in paths}
    while len(by_parts) > 1 and len({parts[0] for parts in by_parts}) == 1 and min(map(len, by_parts)) > 1:
        by_parts = {parts[1:]: path for parts, path in by_parts.items()}
    return [*_nested(by_parts), *_siblings(by_parts)]


def _nested(by_parts: Mapping[tuple[str, ...], Path]) -> list[Path]:
    return [
        path
        for parts, path in by_parts.items()
        if any(parts[k:] in by_parts and _same(by_parts[parts[k:]], path) for k in range(1, len(parts)))
    ]


def _siblings(by_parts: Mapping[tuple[str, ...], Path]) -> list[Path]:
    tops: dict[str, dict[tuple[str, ...], Path]] = {}
    for parts, path in by_parts.items():
        tops.setdefault(parts[0], {})[parts[1:]] = path
    first: dict[tuple[str, ...], str] = {}
    copies: list[Path] = []
    for top in sorted(tops):
        tails = tops[top]
        others = {first.get(tail) for tail in tails}
        other = others.pop() if len(others) == 1 else None
        deep = min(map(len, tails)) > 1 and top.lower() not in SPLIT_WORDS
        if other and deep and all(_same(tops[other][tail], path) for tail, path in tails.items()):
            copies += tails.values()
        else:
            for tail in tails:
                first.setdefault(tail, top)
    return copies


def _same(one: Path, other: Path) -> bool:
    try:
        size = one.stat().st_size
        return size == other.stat().st_size and _ends(one, size) == _ends(other, size)
    except OSError:
        return False


def _ends(path: Path, size: int) -> bytes:
    with open(path, "rb") as file:
        start = file.read(_ENDS)
        file.seek(max(0, size - _ENDS))
        return start + file.read(_ENDS)


class _Walk:
    """A walk through folders that goes nowhere twice."""

    def __init__(self, root: str) -> None:
        self.root, self.found = root, Listing()
        self.files: dict[str, str] = {}  # real paths, by the paths under which they are listed
        self.seen: set[tuple[int, int]] = set()
        self.folder_links: list[str] = []
        self.file_links: list[str] = []

    def enter(self, folder: str, real: str) -> None:
        """List a folder and the folders that really lie in it; links are kept for later."""
        waiting = [(folder, real)]
        while waiting:
            here, real = waiting.pop()
            try:
                status = os.stat(here)
                with os.scandir(here) as entries:
                    inside = [entry for entry in entries if not entry.name.startswith(".")]
            except OSError:
                self._leave("folders that cannot be opened", here)
                continue
            if (status.st_dev, status.st_ino) in self.seen:
                self._leave("folders that are listed already", here)
                continue
            self.seen.add((status.st_dev, status.st_ino))
            waiting += [one for entry in inside if (one := self._take(entry, os.path.join(real, entry.name)))]

    def follow(self, link: str) -> None:
        """List what a link to a folder leads to, unless it is listed already or a folder above."""
        real = os.path.realpath(link)
        if self.root == real or self.root.startswith(real.rstrip(os.sep) + os.sep):
            self._leave("links to folders above (loops)", link)
            return
        status = os.stat(link)
        if (status.st_dev, status.st_ino) in self.seen:
            self._leave("folders that are listed already", link)
            return
        self.found.followed.append(Path(link))
        self.enter(link, real)

    def add_file_links(self) -> None:
        """List links to files, the first one to each file that is not listed itself."""
        reals = set(self.files.values())
        for link in sorted(self.file_links):
            real = os.path.realpath(link)
            if real in reals:
                self._leave("links to files that are listed already", link)
            else:
                reals.add(real)
                self.files[link] = real

    def _take(self, entry: os.DirEntry[str], real: str) -> tuple[str, str] | None:
        """Put an entry where it belongs; a folder that really lies there is returned."""
        try:
            is_folder, is_file, is_link = entry.is_dir(), entry.is_file(), entry.is_symlink()
        except OSError:
            is_folder, is_file, is_link = False, False, True
        if is_folder and not is_link:
            return entry.path, real
        if is_folder:
            self.folder_links.append(entry.path)
        elif is_file and is_link:
            self.file_links.append(entry.path)
        elif is_file:
            self.files[entry.path] = real
        else:
            self._leave("links to nothing" if is_link else "pipes, sockets or devices", entry.path)
        return None

    def _leave(self, reason: str, path: str) -> None:
        self.found.left_out.setdefault(reason, []).append(Path(path))
