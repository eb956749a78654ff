"""The image store: every radiograph of an archive decoded once, uint8, in one memory map.

opened.py    an open store, and the checks when it is opened
build.py     build_store, store_of: what is there, what differs, what is left to do
earlier.py   what of a whole store still holds
shard.py     one process's share, resumed from its journal (journal.py) under a lock (lock.py)
pool.py      the processes that decode (data/decoding.py)
join.py      shards to a store, and putting it in its place
"""

from monai_simclr.data.decoding import decode as decode
from monai_simclr.data.store.build import StoreOptions as StoreOptions
from monai_simclr.data.store.build import build_store as build_store
from monai_simclr.data.store.build import store_of as store_of
from monai_simclr.data.store.opened import Store as Store
from monai_simclr.data.store.opened import absent_store as absent_store
from monai_simclr.data.store.opened import open_store as open_store

__all__ = ["Store", "StoreOptions", "absent_store", "build_store", "decode", "open_store", "store_of"]
