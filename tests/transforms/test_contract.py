"""One contract for the whole family of transforms."""

from __future__ import annotations

import copy
import inspect
import pickle
from concurrent.futures import ThreadPoolExecutor

import family
import monai.transforms
import numpy as np
import pytest
import torch
from family import ARGUMENTS, BATCHED, DTYPES, GATED, RANDOM, SPATIAL, array, dictionary, pixels, plain
from monai.bundle import ConfigParser
from monai.data import DataLoader, Dataset, MetaTensor, set_track_meta
from monai.transforms import Compose

from monai_simclr import transforms

every = pytest.mark.parametrize("name", ARGUMENTS)
KINDS = {"numpy": np.array, "tensor": torch.tensor, "MetaTensor": lambda image: MetaTensor(torch.tensor(image))}


@pytest.fixture
def untracked():
    set_track_meta(False)
    yield
    set_track_meta(True)


def test_the_contract_covers_every_transform():
    assert family.public() == set(ARGUMENTS)


# array = dictionary = batch


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", BATCHED)
def test_a_batch_is_its_images_one_by_one_bit_for_bit(name, dtype):
    if not family.takes(name, dtype):
        pytest.skip(f"{name} does not take {dtype}")
    images, transform = torch.from_numpy(pixels(dtype)), array(name, dtype)
    together = transform.batch(images)
    for i, image in enumerate(images):
        if name in RANDOM:
            own = copy.deepcopy(transform)
            own.keep, own.drawn = own.keep[i : i + 1], {key: value[i : i + 1] for key, value in own.drawn.items()}
            alone = own(image, randomize=False)
        else:
            alone = transform(image)
        assert torch.equal(together[i], plain(alone))


@pytest.mark.parametrize("kind", KINDS)
@every
def test_dictionary_is_array_and_keys_share_one_draw(name, kind):
    image = KINDS[kind](pixels(family.dtype_of(name))[0])
    expected = array(name)(image)
    out = dictionary(name, ["a", "b"])({"a": image, "b": image, "id": 1})
    assert torch.equal(out["a"], expected)
    assert torch.equal(out["b"], expected)
    assert out["id"] == 1


@every
def test_two_channels_are_treated_alike_or_refused(name):
    image = pixels(family.dtype_of(name), channels=1)[0].repeat(2, 0)
    if name in ("ToNetworkInput", "RandRadiographView"):
        with pytest.raises(ValueError, match=r"\(B, 1, "):
            array(name)(image)
    else:
        out = array(name)(image)
        assert torch.equal(out[0], out[1])
        assert torch.equal(out[:1], array(name)(image[:1]))


# kinds of input


@pytest.mark.parametrize("kind", KINDS)
@every
def test_every_kind_of_input_gives_the_same_tensor_and_is_not_written_to(name, kind):
    dtype = family.dtype_of(name)
    image, reference = KINDS[kind](pixels(dtype)[0]), pixels(dtype)[0]
    for seed in range(3):  # with and without a gate that opens
        out = array(name, seed=seed)(image)
        assert isinstance(out, MetaTensor)
        assert torch.equal(out, array(name, seed=seed)(torch.from_numpy(reference)))
        if name in BATCHED:  # nor is the result a window to the input; MONAI's crops are
            out += 1
        np.testing.assert_array_equal(np.asarray(image), pixels(dtype)[0])


@pytest.mark.parametrize("dtype", DTYPES)
@every
def test_every_dtype_gives_the_stated_one_or_is_refused(name, dtype):
    image = torch.from_numpy(pixels(dtype)[0])
    if not family.takes(name, dtype):
        with pytest.raises(ValueError, match=r"stored images are uint8|values in \[0, 1\]"):
            array(name, dtype)(image)
        return
    out = array(name, dtype, **({"prob": 1.0} if name in GATED else {}))(image)
    assert str(out.dtype) == f"torch.{family.makes(name, dtype)}"
    assert out.isfinite().all() if out.is_floating_point() else True


CANONICAL = {"CLAHE": {}, "RandCLAHE": {"prob": 1.0}, "RandRadiographView": {"size": 32}, "RandWindow": {}}
"""Transforms of images in [0, 1]; other units need a window."""


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("name", CANONICAL)
def test_gray_levels_and_standardized_values_in_floating_point_are_refused(name, dtype):
    image, nans = pixels()[0].astype(dtype), pixels()[0].astype(dtype)
    nans[0, 0, 0] = np.nan
    transform = getattr(transforms, name)(**CANONICAL[name])
    for wrong in (image * 233, nans * 233, (image - image.mean()) / image.std()):
        with pytest.raises(ValueError, match=r"values in \[0, 1\], got .* to .*; scale it first, .* ScaleIntensity"):
            transform(wrong)
        with pytest.raises(ValueError, match=r"values in \[0, 1\], got"):
            transform.batch(torch.from_numpy(wrong)[None])
    for near in (image * 1.1, image - 0.1, nans):  # as cubic interpolation, noise or another brightness leave it
        assert transform(near).shape[0] == 1


@pytest.mark.parametrize("name", ["Window", "RandWindow"])
@pytest.mark.parametrize("form", ["array", "dictionary"])
def test_a_window_is_used_up_by_being_applied(name, form):
    meta = {"window_center": 15000.0, "window_width": 9000.0, "voi_lut_function": "LINEAR"}
    readers = {"00281050": {"vr": "DS", "Value": [1.0]}, "0028|1051": "2", "WindowCenter": 3.0}
    image = MetaTensor(pixels()[0] * 9000 + 10500, meta={**meta, **readers, "view_position": "PA"})
    transform = getattr(transforms, name)()
    dict_transform = getattr(transforms, f"{name}d")("image")
    out = transform(image) if form == "array" else dict_transform({"image": image})["image"]
    assert 0.2 < float(out.mean()) < 0.8
    assert set(out.meta) & {*meta, *readers} == set()
    assert out.meta["view_position"] == "PA"
    assert out.meta["window"] == pytest.approx((15000, 9000), rel=0.25 if name == "RandWindow" else 0)
    assert {*meta, *readers} <= set(image.meta)
    with pytest.raises(ValueError, match=r"windowed already, by RadiographReader or Window\); give center and width"):
        transforms.Window()(out)
    torch.testing.assert_close(plain(transforms.RandWindow(prob=0.0)(out)), plain(out))
    again = transforms.RandWindow(prob=1.0).set_random_state(0)(out)
    assert float((again - out).abs().mean()) < 0.2
    assert again.meta["window"] == pytest.approx((0.5, 1.0), rel=0.25)


@every
def test_metadata_are_kept_and_not_shared(name):
    image = MetaTensor(pixels(family.dtype_of(name))[0], meta={"view_position": "PA"})
    out = array(name, **({"prob": 1.0} if name in GATED else {}))(image)
    assert out.meta["view_position"] == "PA"
    out.meta["view_position"] = "AP"
    assert image.meta["view_position"] == "PA"


@every
def test_without_tracking_a_plain_tensor_comes_out(name, untracked):
    for image in (pixels(family.dtype_of(name))[0], torch.from_numpy(pixels(family.dtype_of(name))[0])):
        assert type(array(name)(image)) is torch.Tensor
        assert type(dictionary(name)({"image": image})["image"]) is torch.Tensor


@every
def test_a_volume_and_an_image_without_channel_are_supported_or_refused(name):
    volume = np.random.RandomState(0).rand(1, 16, 16, 16).astype("float32")
    flat = volume[0, 0]
    if "Window" in name:
        assert array(name)(volume).shape == volume.shape
        return
    for wrong in (volume, flat):
        with pytest.raises(ValueError, match=r"\(C, H, W\)"):
            array(name)(wrong)


@pytest.mark.filterwarnings("error")  # torch warns of arrays that must not be written to
@pytest.mark.parametrize("dtype", DTYPES)
@every
def test_the_layout_in_memory_changes_nothing(name, dtype):
    if not family.takes(name, dtype):
        pytest.skip(f"{name} does not take {dtype}")
    changes = {"prob": 1.0} if name in GATED else {}
    for layout, image in family.layouts(pixels(dtype)[0]).items():
        before, want = family.copy_of(image), array(name, dtype, **changes)(family.copy_of(image))
        assert torch.equal(array(name, dtype, **changes)(image), want), layout
        assert torch.equal(dictionary(name, dtype=dtype, **changes)({"image": image})["image"], want), layout
        assert torch.equal(family.copy_of(image), before), layout


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", BATCHED)
def test_the_layout_of_a_batch_changes_nothing(name):
    dtype = family.dtype_of(name)
    channels = 1 if name in ("ToNetworkInput", "RandRadiographView") else 2
    for layout, images in family.layouts(pixels(dtype, channels=channels)).items():
        want = array(name, dtype).batch(family.copy_of(images))
        assert torch.equal(array(name, dtype).batch(images), want), layout


@pytest.mark.filterwarnings("error")
def test_the_layout_changes_no_view_of_several():
    for layout, image in family.layouts(pixels("uint8")[0]).items():
        views = transforms.MultiView(transforms.RandRadiographView(size=32)).set_random_state(1)
        want = transforms.MultiView(transforms.RandRadiographView(size=32)).set_random_state(1)(family.copy_of(image))
        assert all(torch.equal(a, b) for a, b in zip(views(image), want, strict=True)), layout


# randomness


@pytest.mark.parametrize("name", GATED)
def test_prob_zero_changes_no_image_and_one_changes_all(name):
    images = [torch.from_numpy(image) for image in pixels()]
    never, always = array(name, prob=0.0), array(name, prob=1.0)
    for image in images:
        torch.testing.assert_close(plain(never(image)), image, rtol=0, atol=1e-6 if name == "RandWindow" else 0)
        assert not torch.equal(plain(always(image)), image)
    with pytest.raises(ValueError, match=r"prob must be in \[0, 1\], got 1.5"):
        array(name, prob=1.5)


@pytest.mark.parametrize("name", RANDOM)
def test_the_same_seed_gives_the_same_images_and_another_gives_others(name):
    image = torch.from_numpy(pixels()[0])
    one, two, other = (array(name, seed=seed) for seed in (1, 1, 2))
    ones, twos, others = ([plain(transform(image)) for _ in range(4)] for transform in (one, two, other))
    assert all(torch.equal(a, b) for a, b in zip(ones, twos, strict=True))
    assert not all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(ones, others, strict=True))


@pytest.mark.parametrize("name", RANDOM)
def test_only_its_own_state_is_random(name):
    image, transform = torch.from_numpy(pixels()[0]), array(name)
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    transform(image)
    assert torch.equal(torch.get_rng_state(), torch_before)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_before)


@pytest.mark.parametrize("name", RANDOM)
def test_without_a_draw_there_is_nothing_to_apply(name):
    if name == "RandMildRotate":
        pytest.skip("MONAI's own: it then does nothing")
    with pytest.raises(RuntimeError, match=r"call it with randomize=True first"):
        array(name)(pixels()[0], randomize=False)


# copies, processes, threads


@every
def test_copies_and_pickles_do_the_same(name):
    item = {"image": pixels(family.dtype_of(name))[0]}
    transform = dictionary(name)
    others = [copy.deepcopy(transform), pickle.loads(pickle.dumps(transform))]
    expected = transform(item)["image"]
    for other in others:
        assert torch.equal(other(item)["image"], expected)


@every
def test_worker_processes_give_what_the_main_process_gives(name):
    items = [{"image": image} for image in pixels(family.dtype_of(name))]
    if name in RANDOM:  # MONAI seeds workers on its own: compare images that no draw changes
        items = items[:1]
        expected = [_as_in_a_worker(name, items[0])]
    else:
        expected = [dictionary(name)(item)["image"] for item in items]
    generator = torch.Generator().manual_seed(0)
    loader = DataLoader(Dataset(items, dictionary(name)), batch_size=1, num_workers=1, generator=generator)
    for got, want in zip(loader, expected, strict=True):
        assert torch.equal(plain(got["image"])[0], plain(want))


def _as_in_a_worker(name, item):
    """What MONAI's worker_init_fn does: the dataset's transform is seeded with the worker's seed."""
    from monai.data.utils import set_rnd

    generator = torch.Generator().manual_seed(0)
    base = torch.empty((), dtype=torch.int64).random_(generator=generator).item()
    dataset = Dataset([item], dictionary(name))
    set_rnd(dataset, seed=base)
    return dataset[0]["image"]


@every
def test_threads_give_what_one_thread_gives(name):
    items = [{"image": image} for image in pixels(family.dtype_of(name), count=16)]
    if name in RANDOM:  # MONAI copies what is ThreadUnsafe before it runs it in a thread
        assert issubclass(type(dictionary(name)), monai.transforms.ThreadUnsafe)
        pipeline = Compose([dictionary(name)]).set_random_state(0)
        apart = [copy.deepcopy(pipeline) for _ in items]
        call = [lambda item, own=own: own(item, threading=True)["image"] for own in apart]
        expected = [copy.deepcopy(pipeline)(item)["image"] for item in items]
    else:
        one_for_all = dictionary(name)
        call = [lambda item: one_for_all(item)["image"]] * len(items)
        expected = [dictionary(name)(item)["image"] for item in items]
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda pair: pair[0](pair[1]), zip(call, items, strict=True)))
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


# dictionaries, names, configs


@every
def test_a_missing_key_is_an_error_unless_allowed(name):
    item = {"image": pixels(family.dtype_of(name))[0]}
    with pytest.raises(KeyError, match="other"):
        dictionary(name, ["image", "other"])(item)
    out = dictionary(name, ["image", "other"], allow_missing_keys=True)(item)
    assert torch.equal(out["image"], dictionary(name)(item)["image"])
    assert "other" not in out
    assert dictionary(name, ["other"], allow_missing_keys=True)({"id": 1}) == {"id": 1}


@every
def test_dictionary_has_the_parameters_defaults_and_aliases_of_the_array(name):
    kind, form = getattr(transforms, name), getattr(transforms, f"{name}d")
    assert getattr(transforms, f"{name}D") is getattr(transforms, f"{name}Dict") is form
    assert form.__name__ == f"{name}d"
    own = list(inspect.signature(form).parameters.values())
    assert [parameter.name for parameter in (own[0], own[-1])] == ["keys", "allow_missing_keys"]
    assert own[1:-1] == list(inspect.signature(kind).parameters.values())
    assert kind.backend == form.backend


@every
def test_a_bundle_config_finds_it_by_dotted_and_by_short_name(name):
    rest = family.arguments(name)
    for target in (f"monai_simclr.transforms.{name}", name):
        made = ConfigParser({"t": {"_target_": target, **rest}}).get_parsed_content("t")
        assert type(made) is getattr(transforms, name)
    for target in (f"monai_simclr.transforms.{name}d", f"{name}d"):
        made = ConfigParser({"t": {"_target_": target, "keys": "image", **rest}}).get_parsed_content("t")
        assert type(made) is getattr(transforms, f"{name}d")


def test_no_public_name_exists_in_monai():
    ours = {name for name in vars(transforms) if name[0].isupper()}
    assert not ours & set(vars(monai.transforms))
    for name in ours:
        assert not any(hasattr(module, name) for module in (monai.data, monai.losses, monai.networks, monai.utils))


class Darker(transforms.Operation):
    """A transform of somebody else's, who passes options on."""

    def __init__(self, share: float = 0.5, **options) -> None:
        self.share, self.options = share, options

    def apply(self, images, **params):
        return images * self.share


Darkerd = transforms.make_dict_transform(Darker)


def test_a_transform_of_ones_own_gets_a_dictionary_form_that_pickles():
    assert list(inspect.signature(Darkerd).parameters) == ["keys", "share", "allow_missing_keys", "options"]
    assert Darkerd.__module__ == Darker.__module__
    made = pickle.loads(pickle.dumps(Darkerd(["image", "other"], 0.25, allow_missing_keys=True, mode="linear")))
    image = pixels()[0]
    assert torch.equal(plain(made({"image": image})["image"]), torch.from_numpy(image) * 0.25)
    assert made.transform.options == {"mode": "linear"}


# spatial transforms


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("prob", [0.0, 1.0])
def test_a_rotation_rounds_gray_levels_and_brings_them_back(dtype, prob):
    image = MetaTensor(torch.from_numpy(pixels(dtype, size=96)[0]))
    top = {"uint8": 255, "uint16": 65535}[dtype]
    transform = dictionary("RandMildRotate", prob=prob)
    out = transform({"image": image})
    exact = array("RandMildRotate", prob=prob)(image.to(torch.float32))
    assert out["image"].dtype == image.dtype
    assert float((plain(out["image"]).to(torch.float32) - plain(exact)).abs().max()) <= 0.5
    back = transform.inverse(out)["image"]
    assert back.dtype == image.dtype
    inside = np.s_[:, 40:56, 40:56]
    difference = plain(back)[inside].to(torch.float32) - plain(image)[inside].to(torch.float32)
    assert float(difference.abs().mean()) < 0.01 * top


def test_a_rotation_that_is_not_drawn_leaves_no_trace_in_the_input():
    image = MetaTensor(pixels()[0])
    out = array("RandMildRotate", prob=0.0)(image)
    out += 1
    assert not image.applied_operations
    np.testing.assert_array_equal(image.numpy(), pixels()[0])


def test_the_pipeline_of_the_how_to_page_makes_the_same_of_uint8_as_of_floating_point():
    pipeline = Compose(
        [
            dictionary("RandMildRotate", prob=1.0),
            dictionary("RandLungPreservingCrop", lungs="prior"),
            dictionary("RandCLAHE", prob=1.0),
            transforms.RandWindowd("image", prob=1.0),
        ]
    )
    for seed in range(4):
        gray, floats = (pipeline.set_random_state(seed)({"image": pixels(d)[0]})["image"] for d in ("uint8", "float32"))
        assert 0.2 < float(gray.mean()) < 0.8
        assert float((gray - floats).abs().mean()) < 0.02  # CLAHE of tiles of 8 pixels spreads a rounding


def test_a_rotated_image_can_be_stored():
    image = torch.ones(1, 65, 65)
    rotated = [array("RandMildRotate", seed=seed, prob=1.0)(image) for seed in range(10)]
    assert max(float(each.max()) for each in rotated) > 1  # by a rounding
    assert all(int(transforms.ToStored(32)(each).min()) == 255 for each in rotated)


@pytest.mark.parametrize("name", SPATIAL)
def test_the_inverse_brings_an_image_back(name):
    image = MetaTensor(pixels(size=96)[0])
    transform = dictionary(name, seed=1, **({"prob": 1.0} if name in GATED else {}))
    out = transform({"image": image})
    back = transform.inverse(out)["image"]
    assert back.shape == image.shape
    assert not back.applied_operations
    torch.testing.assert_close(back.affine, image.affine)
    inside = np.s_[:, 40:56, 40:56]
    assert float((plain(back)[inside] - plain(image)[inside]).abs().mean()) < 0.01


@pytest.mark.parametrize("name", SPATIAL)
def test_lazy_is_eager_within_interpolation(name):
    image = MetaTensor(pixels(size=96)[0])
    changes = {"prob": 1.0} if name in GATED else {}
    eager = Compose([dictionary(name, **changes)], lazy=False).set_random_state(2)({"image": image})["image"]
    lazy = Compose([dictionary(name, **changes)], lazy=True).set_random_state(2)({"image": image})["image"]
    assert lazy.shape == eager.shape
    assert not lazy.pending_operations
    torch.testing.assert_close(plain(lazy), plain(eager), rtol=0, atol=1e-3)
    ends = [0, 1, -1]  # MONAI's eager crops keep a 2-D affine, its lazy ones a 3-D one
    torch.testing.assert_close(lazy.affine[:2, ends], eager.affine[:2, ends])


def test_a_lazy_chain_in_two_dimensions_is_the_eager_chain():
    chain = [dictionary("RandMildRotate", prob=1.0), dictionary("RandLungPreservingCrop", lungs="prior")]
    for seed in range(10):
        image = {"image": MetaTensor(pixels(size=96)[0])}
        eager, lazy = (
            Compose(copy.deepcopy(chain), lazy=how).set_random_state(seed)(image)["image"] for how in (False, True)
        )
        assert lazy.shape == eager.shape
        torch.testing.assert_close(plain(lazy), plain(eager), rtol=0, atol=1e-3)
