"""Files below a folder: links are followed, each file is listed once, and excluded files are counted by reason."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from monai_simclr.data.columns import SPLIT_WORDS, logger
from monai_simclr.runtime.names import shown
from monai_simclr.runtime.tables import hold_odd_names

_COMPARED_BYTES = 1 << 15
"""At the start and at the end of two files: they hold identifiers, and compressed pixels."""


@dataclass
class Listing:
    """Files below a folder.

    Attributes:
        paths: regular files that are not hidden, sorted.
        excluded: other files, by the reason.
        followed: links to folders whose files are among `paths`.
    """

    paths: list[Path] = field(default_factory=list)
    excluded: dict[str, list[Path]] = field(default_factory=dict)
    followed: list[Path] = field(default_factory=list)

    def exclude(self, reason: str, paths: Iterable[Path]) -> None:
        """Move paths from the list to those excluded for a reason."""
        excluded = dict.fromkeys(paths)
        if excluded:
            self.excluded.setdefault(reason, []).extend(excluded)
            self.paths = [path for path in self.paths if path not in excluded]

    def counts(self) -> dict[str, int]:
        """Number of excluded files by reason."""
        return {reason: len(paths) for reason, paths in self.excluded.items()}

    def log(self, folder: Path) -> None:
        """Log what was excluded below a folder, and which links were followed."""
        if self.excluded:
            logger.warning(describe_excluded(self.excluded, folder))
        if self.followed:
            logger.info(f"{len(self.followed)} links to folders are followed, the first is {shown(self.followed[0])}")


def list_files(folder: str | Path) -> Listing:
    """List every regular file below a folder, except hidden files and folders.

    Links to folders are followed after the folders themselves. Excluded are links to what is listed already, to folders
    above (which would be loops) and to nothing, folders that cannot be opened, pipes, sockets and devices.
    """
    listing, root = Listing(), os.path.realpath(folder)
    entered: set[tuple[int, int]] = set()
    by_kind: dict[str, list[tuple[str, str]]] = defaultdict(list)  # path and real path, by the kind of entry
    by_kind["folder"] = [(os.fspath(folder), root)]
    while by_kind["folder"] or by_kind["link to folder"]:
        followed = not by_kind["folder"]
        if followed:
            by_kind["link to folder"].sort(reverse=True)
        path, real = by_kind["link to folder" if followed else "folder"].pop()
        if followed and (root == real or root.startswith(real.rstrip(os.sep) + os.sep)):
            by_kind["links to folders above (loops)"].append((path, real))
            continue
        try:
            status = os.stat(path)
            with os.scandir(path) as scanned:
                entries = [entry for entry in scanned if not entry.name.startswith(".")]
        except OSError:
            by_kind["folders that cannot be opened"].append((path, real))
            continue
        if (status.st_dev, status.st_ino) in entered:
            by_kind["folders that are listed already"].append((path, real))
            continue
        entered.add((status.st_dev, status.st_ino))
        listing.followed += [Path(path)] if followed else []
        for entry in entries:
            kind = _kind(entry)
            resolved = os.path.realpath(entry.path) if "link" in kind else os.path.join(real, entry.name)
            by_kind[kind].append((entry.path, resolved))
    files = by_kind.pop("file", [])
    real_paths = {real for _, real in files}
    for path, real in sorted(by_kind.pop("link to file", [])):
        if real in real_paths:
            by_kind["links to files that are listed already"].append((path, real))
        else:
            real_paths.add(real)
            files.append((path, real))
    hold_odd_names([*(path for path, _ in files), os.fspath(folder)])
    listing.paths = sorted(Path(path) for path, _ in files)
    listing.excluded = {reason: [Path(path) for path, _ in paths] for reason, paths in by_kind.items() if paths}
    return listing


def _kind(entry: os.DirEntry[str]) -> str:
    """Kind of a folder's entry, or why it is excluded."""
    try:
        is_folder, is_file, is_link = entry.is_dir(), entry.is_file(), entry.is_symlink()
    except OSError:
        return "links to nothing"
    if is_folder or is_file:
        return ("link to " if is_link else "") + ("folder" if is_folder else "file")
    return "links to nothing" if is_link else "pipes, sockets or devices"


def describe_excluded(excluded: Mapping[str, Sequence[Path]], folder: str | Path) -> str:
    """Message with the count and the first name for each reason.

    Example:
        >>> describe_excluded({"not DICOM": [Path("in/b.txt"), Path("in/a.txt")]}, "in")
        '2 files below in are excluded: not DICOM (2, the first is a.txt)'
    """
    reasons = []
    for reason, paths in excluded.items():
        first = min(paths)
        name = first.relative_to(folder) if first.is_relative_to(folder) else first
        reasons.append(f"{reason} ({len(paths)}, the first is {shown(name)})")
    return f"{sum(map(len, excluded.values()))} files below {shown(folder)} are excluded: {'; '.join(reasons)}"


def second_copies(paths: Sequence[Path], folder: str | Path) -> list[Path]:
    """Files of a data set that was unpacked twice, as ``chest_xray/chest_xray`` often was.

    A file is a second copy if the same file has the same name some folders higher up, or if its whole top folder has
    the same files under the same names in another top folder. Two files are the same if their sizes, starts and ends
    are.

    Args:
        paths: files below the folder.
        folder: of the data set.
    """
    by_parts = {path.relative_to(folder).parts: path for path in paths}
    while len(by_parts) > 1 and len({parts[0] for parts in by_parts}) == 1 and min(map(len, by_parts)) > 1:
        by_parts = {parts[1:]: path for parts, path in by_parts.items()}
    nested = [
        path
        for parts, path in by_parts.items()
        if any(parts[k:] in by_parts and _are_same(by_parts[parts[k:]], path) for k in range(1, len(parts)))
    ]
    return [*nested, *_copied_folders(by_parts)]


def _copied_folders(by_parts: Mapping[tuple[str, ...], Path]) -> list[Path]:
    """Files of top folders whose files are all in one earlier top folder."""
    folders: dict[str, dict[tuple[str, ...], Path]] = {}
    for parts, path in by_parts.items():
        folders.setdefault(parts[0], {})[parts[1:]] = path
    first: dict[tuple[str, ...], str] = {}
    copies: list[Path] = []
    for name, files in sorted(folders.items()):
        earlier = {first.get(parts) for parts in files}
        original = folders.get(earlier.pop() or "") if len(earlier) == 1 else None
        may_repeat = min(map(len, files)) > 1 and name.lower() not in SPLIT_WORDS
        if original and may_repeat and all(_are_same(original[parts], path) for parts, path in files.items()):
            copies += files.values()
        else:
            for parts in files:
                first.setdefault(parts, name)
    return copies


def _are_same(path: Path, other: Path) -> bool:
    try:
        sizes = path.stat().st_size, other.stat().st_size
        return sizes[0] == sizes[1] and _read_ends(path, sizes[0]) == _read_ends(other, sizes[0])
    except OSError:
        return False


def _read_ends(path: Path, size: int) -> bytes:
    with open(path, "rb") as file:
        start = file.read(_COMPARED_BYTES)
        file.seek(max(0, size - _COMPARED_BYTES))
        return start + file.read(_COMPARED_BYTES)
