"""The image store: every radiograph of an archive decoded once, uint8, in one memory map.

opened.py      an open store, and the checks when it is opened
build.py       build_store, get_store: what differs, what is left to decode
unfinished.py  a store while it is built: pixels, journal, plan; and its publication
previous.py    what of a complete store is still current
rows.py        the columns of its rows that training needs
"""

from monai_simclr.data.decoding import decode as decode
from monai_simclr.data.store.build import StoreOptions as StoreOptions
from monai_simclr.data.store.build import build_store as build_store
from monai_simclr.data.store.build import get_store as get_store
from monai_simclr.data.store.opened import Store as Store
from monai_simclr.data.store.opened import open_store as open_store

__all__ = ["Store", "StoreOptions", "build_store", "decode", "get_store", "open_store"]
