"""Archives to stores, and stores to what a trainer eats."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from monai_simclr.data import build_store, finding_columns, loader, open_index, ordered_batches, store_records
from monai_simclr.data.loading import KeyedSampler, StoreDataset
from monai_simclr.data.phantoms import write_nih_phantoms
from monai_simclr.engines import PrepareTwoViews
from monai_simclr.recipes import augmentation, views
from monai_simclr.transforms import DrawViewsd, MultiViewd, RandRadiographView, SizeSchedule, ToNetworkInputd


@pytest.fixture
def archive(tmp_path):
    return write_nih_phantoms(tmp_path / "nih", n_patients=12, size=64, bad_files=1)


def test_items_have_a_key_and_not_a_history(archive, tmp_path):
    store = build_store(open_index(archive), tmp_path / "s", 64, workers=0, max_rejected=0.5)
    one, two = (StoreDataset(store, ["train", "val"], transform=augmentation(56), seed=3) for _ in range(2))
    first = [one[1, row]["image"] for row in range(4)]
    again = [two[1, row]["image"] for row in (3, 2, 1, 0)][::-1]
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert any((one[2, row]["image"] != first[row]).any() for row in range(4))


def test_the_sampler_hands_out_the_epoch_and_every_position_once(archive, tmp_path):
    store = build_store(open_index(archive), tmp_path / "s", 32, workers=0, max_rejected=0.5)
    sampler = KeyedSampler(StoreDataset(store, ["train", "val"]), seed=1)
    orders = []
    for epoch in (0, 1):
        sampler.set_epoch(epoch)
        keys = list(sampler)
        assert {key[0] for key in keys} == {epoch}
        orders.append([key[1] for key in keys])
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(len(orders[0])))
    assert orders[0] != orders[1]


def test_an_unknown_split_names_those_that_are_there(archive, tmp_path):
    store = build_store(open_index(archive), tmp_path / "s", 32, workers=0, max_rejected=0.5)
    with pytest.raises(ValueError, match=r"no image is in the splits \['holdout'\]; the index has \['test', 'train'"):
        StoreDataset(store, ["holdout"])


def test_records_in_the_place_of_splits_give_the_same_items(store):
    findings = list(finding_columns(store.index))[:2]
    rows = np.flatnonzero(store.index["split"] == "train")[::3]
    named = StoreDataset(store, ["train"], findings, rows=rows)
    listed = StoreDataset(store, data=store_records(store, ["train"], findings, rows))
    assert list(listed.data) == list(named.data)
    assert list(StoreDataset(store, data=list(named.data)).data) == list(named.data)
    assert named.splits == listed.splits == ("train",)
    assert len(listed) == len(rows)
    for one, other in zip(named, listed, strict=True):
        assert all(torch.equal(torch.as_tensor(one[key]), torch.as_tensor(other[key])) for key in one)
    two = store_records(store, ["train"], findings)[:2]
    assert StoreDataset(store, data=two).labels.shape == (2, 2)
    assert StoreDataset(store, data=store_records(store)[:2]).labels is None


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("loading")
    archive = write_nih_phantoms(folder / "nih", n_patients=24, size=64)
    return build_store(open_index(archive), folder / "s", 64, workers=0)


def transforms_of_batches():
    view = views("default", 48)
    return {
        "views": MultiViewd("image", view),
        "draws": DrawViewsd("image", view),
        "augmentation": augmentation(48),
        "finished": ToNetworkInputd("image", 48),
        "none": None,
    }


def flat(item, prefix=""):
    for name, value in item.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, torch.as_tensor(value, dtype=torch.float64 if isinstance(value, float) else None)


@pytest.mark.parametrize("name", transforms_of_batches())
@pytest.mark.parametrize("second_view", ["image", "patient"])
def test_a_whole_batch_is_its_items_bit_for_bit(store, name, second_view):
    def dataset():
        return StoreDataset(
            store, ["train", "val"], ["Effusion"], transforms_of_batches()[name], seed=5, second_view=second_view
        )

    keys = [(3, position) for position in (4, 0, 9, 4)]
    whole = dataset()
    whole.whole_batches = True
    batch = dict(flat(whole.__getitems__(keys)))
    items = [dict(flat(item)) for item in dataset().__getitems__(keys)]
    assert set(batch) == set(items[0])
    for key, value in batch.items():
        torch.testing.assert_close(value, torch.stack([item[key] for item in items]).to(value.dtype), rtol=0, atol=0)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_loader_gives_whole_batches_that_do_not_depend_on_workers_or_batch_size(store, workers):
    def images(batch_size, workers):
        dataset = StoreDataset(store, ["train", "val"], transform=MultiViewd("image", views("mild", 48)), seed=5)
        batches = loader(dataset, KeyedSampler(dataset, 5), batch_size, workers, 5)
        return torch.cat([batch["image_2"] for batch in batches])

    alone, together = images(1, 0), images(4, workers)
    assert torch.equal(alone[: len(together)], together)
    assert not torch.equal(together[0], together[1])


def test_batches_in_order_are_those_of_single_items_and_none_is_left_out(store):
    def dataset():
        return StoreDataset(store, ["train", "val"], ["Effusion"], ToNetworkInputd("image", 48))

    whole, items = list(ordered_batches(dataset(), 7)), list(DataLoader(dataset(), 7))
    assert sum(len(batch["image"]) for batch in whole) == len(dataset())
    for batch, expected in zip(whole, items, strict=True):
        assert list(batch) == list(expected)
        assert all(torch.equal(batch[name], expected[name]) for name in batch)


@pytest.mark.parametrize("workers", [0, 1])
def test_views_have_the_size_of_their_epoch_in_workers_and_on_the_device(store, workers):
    view = RandRadiographView(48, schedule=SizeSchedule([[24, 0.5], [36, 0.25], [48, 0.25]], epochs=4))
    batches = {}
    for form in (MultiViewd, DrawViewsd):
        data = StoreDataset(store, ["train"], transform=form("image", view), seed=5)
        batches[form] = loader(data, KeyedSampler(data, 5), 8, workers if form is MultiViewd else 0, 5)
    sizes = []
    for epoch in (1, 2, 3, 4):
        for each in batches.values():
            each.sampler.set_epoch(epoch)
        made, _ = PrepareTwoViews()(next(iter(batches[MultiViewd])))
        there, _ = PrepareTwoViews(transform=view)(next(iter(batches[DrawViewsd])))
        assert torch.equal(made, there)
        sizes.append(made.shape[-1])
    assert sizes == [24, 24, 36, 48]


def test_a_size_schedule_changes_the_size_and_nothing_else_of_a_last_stage(store):
    plain, grown = RandRadiographView(48), RandRadiographView(48, schedule=SizeSchedule([[24, 0.5], [48, 0.5]], 2))
    made = [
        StoreDataset(store, transform=MultiViewd("image", view), seed=5)[2, 0]["image_1"] for view in (plain, grown)
    ]
    assert torch.equal(*made)


def test_a_batch_of_epochs_with_several_sizes_is_refused(store):
    view = RandRadiographView(48, schedule=SizeSchedule([[24, 0.5], [48, 0.5]], 2))
    data = StoreDataset(store, transform=MultiViewd("image", view))
    data.whole_batches = True
    with pytest.raises(ValueError, match=r"views of several sizes, \[24, 48\]; split it by epoch"):
        data.__getitems__([(1, 0), (2, 0)])


def test_views_made_on_the_device_are_those_of_the_workers(store):
    view = views("default", 48)
    draws, made = (
        StoreDataset(store, ["train"], transform=form("image", view), seed=5, second_view="patient")
        for form in (DrawViewsd, MultiViewd)
    )
    keys = [(1, position) for position in range(8)]
    draws.whole_batches = made.whole_batches = True
    here, ids = PrepareTwoViews(transform=view)(draws.__getitems__(keys))
    there, same_ids = PrepareTwoViews()(made.__getitems__(keys))
    torch.testing.assert_close(here, there, rtol=0, atol=0)
    assert torch.equal(ids, same_ids)


def test_the_second_view_is_of_another_film_of_the_same_patient_and_changes_with_the_epoch(store):
    dataset = StoreDataset(store, ["train", "val"], seed=5, second_view="patient")
    of = {store.images[row].tobytes(): row for row in dataset.rows}
    films = store.index["patient_id"].value_counts()
    partners = set()
    for epoch in range(30):
        for position, row in enumerate(dataset.rows):
            partner = of[dataset[epoch, position]["partner"].numpy().tobytes()]
            patient = store.index["patient_id"].iat[row]
            assert store.index["patient_id"].iat[partner] == patient
            assert (partner == row) == (films[patient] == 1)
            partners.add((row, partner))
    several = films[films > 2].index
    rows = np.flatnonzero(store.index["patient_id"].isin(several) & store.index["split"].isin(["train", "val"]))
    assert rows.size
    assert all(len({p for row, p in partners if row == r}) > 1 for r in rows)


def test_batches_of_a_stratum_agree_in_it_and_every_image_comes_at_most_once(store):
    dataset = StoreDataset(store, ["train", "val"])
    sampler = KeyedSampler(dataset, 1, strata=["view_position"], batch_size=4)
    view = store.index["view_position"].to_numpy()[dataset.rows]
    orders = []
    for epoch in (0, 1):
        sampler.set_epoch(epoch)
        order = np.array([position for _, position in sampler])
        assert len(np.unique(order)) == len(order) == len(dataset)
        batches = order[: len(order) // 4 * 4].reshape(-1, 4)
        mixed = sum(len(set(view[batch])) > 1 for batch in batches)
        assert mixed <= len(set(view)) - 1
        orders.append(order.tolist())
    assert orders[0] != orders[1]


def test_strata_need_a_column_of_the_index_and_a_batch_size(store):
    dataset = StoreDataset(store, ["train"])
    with pytest.raises(ValueError, match=r"the index, which lacks \['scanner'\]; it has"):
        KeyedSampler(dataset, strata=["scanner"], batch_size=4)
    with pytest.raises(ValueError, match="need the batch_size of all ranks, got 0"):
        KeyedSampler(dataset, strata=["view_position"])
