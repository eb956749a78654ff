"""What the trainer adds to MONAI's: precision, the switch for compilation, views on the device, its output's form."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from monai.handlers import StatsHandler, from_engine
from torch import nn
from torch.utils.data import DataLoader

from monai_simclr.data import KeyedSampler, Store, StoreDataset
from monai_simclr.engines import ContrastiveTrainer, PrepareTwoViews
from monai_simclr.engines.precision import precision_settings
from monai_simclr.losses import NTXentLoss
from monai_simclr.recipes import views
from monai_simclr.transforms import DrawViewsd, MultiViewd


def _batch(n: int = 4, size: int = 8) -> dict[str, torch.Tensor]:
    views = torch.arange(2 * n * size * size).remainder(251).to(torch.uint8).view(2, n, 1, size, size)
    return {"image_1": views[0], "image_2": views[1], "row": torch.arange(n)}


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 16))


def _trainer(network: nn.Module, **kwargs: object) -> ContrastiveTrainer:
    settings = {"loss_function": NTXentLoss(0.5), **kwargs}
    return ContrastiveTrainer(
        device=torch.device("cpu"),
        max_epochs=2,
        train_data_loader=[_batch(), _batch()],
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), 0.01),
        **settings,
    )


def _dataset(form: type, rows: int = 12) -> StoreDataset:
    images = np.random.default_rng(1).integers(0, 256, (rows, 72, 72), dtype=np.uint8)
    patients = ["a", "a", "", ""] + [f"p{row}" for row in range(rows - 4)]
    index = pd.DataFrame({"image": [f"{row}.png" for row in range(rows)], "patient_id": patients, "split": "train"})
    store = Store(images, index, pd.DataFrame({"image": [], "reason": []}), {})
    return StoreDataset(store, ["train"], transform=form("image", views("default", 56)), seed=4)


def _first_batch(form: type) -> dict[str, torch.Tensor]:
    dataset = _dataset(form)
    sampler = KeyedSampler(dataset, 4)
    sampler.set_epoch(3)
    return next(iter(DataLoader(dataset, 8, sampler=sampler)))


def test_views_made_on_the_device_show_what_the_workers_would_have_made():
    made, _ = PrepareTwoViews()(_first_batch(MultiViewd))
    there, ids = PrepareTwoViews(transform=views("default", 56))(_first_batch(DrawViewsd))
    assert torch.equal(made, there)
    assert ids.shape == (16,)


def test_views_of_float_images_on_the_device_differ_by_rounding_only():
    made, _ = PrepareTwoViews()(_first_batch(MultiViewd))
    batch = _first_batch(DrawViewsd)
    batch["image"] = batch["image"].float() / 255
    there, _ = PrepareTwoViews(transform=views("default", 56))(batch)
    assert (made - there).abs().mean() * 255 < 1
    assert (made - there).abs().max() * 255 <= 8


def test_images_of_unknown_patients_are_not_one_patient():
    patients = _dataset(MultiViewd).patients.tolist()
    assert patients[0] == patients[1]
    assert len(set(patients)) == len(patients) - 1


def test_bfloat16_computes_in_bfloat16_with_float32_weights():
    seen = []
    network = _network()
    network[0].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    trainer = _trainer(network, precision="bfloat16")
    trainer.run()
    assert set(seen) == {torch.bfloat16}
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    assert trainer.state.output[0]["pred"].dtype == torch.float32


def test_images_reach_the_network_in_channels_last():
    seen = []
    network = _network()
    network[0].register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0].is_contiguous(memory_format=torch.channels_last))
    )
    _trainer(network).run()
    assert seen == [True] * 4


def test_both_views_go_through_the_network_in_one_pass():
    seen = []
    network = _network()
    network[0].register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    _trainer(network).run()
    assert seen == [8] * 4


def test_float16_without_a_gpu_is_refused_with_the_alternative():
    with pytest.raises(ValueError, match="float16 needs a CUDA device, got 'cpu'; use precision bfloat16 here"):
        _trainer(_network(), precision="float16")


def test_float16_on_a_gpu_uses_monais_scaler():
    settings = precision_settings("float16", torch.device("cuda"))
    assert settings["amp"] is True
    assert settings["amp_kwargs"] == {"dtype": torch.float16}


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="precision must be one of auto, float32, bfloat16, float16, got 'half'"):
        _trainer(_network(), precision="half")


def test_a_compiled_network_takes_the_same_steps():
    plain, compiled = _network(), _network()
    _trainer(plain).run()
    _trainer(compiled, compile=True, compile_kwargs={"backend": "eager"}).run()
    for mine, theirs in zip(plain.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_monais_handlers_read_the_output_as_they_read_their_own(capsys):
    stats = StatsHandler(name="stats", tag_name="loss", output_transform=from_engine(["loss"], first=True))
    trainer = _trainer(_network(), train_handlers=[stats])
    trainer.run()
    assert capsys.readouterr().out.count("loss: ") == 4
    assert trainer.state.output[0]["pred"].grad_fn is None, "the graph of a step that is done with is kept"


def test_a_loss_that_counts_its_steps_counts_the_trainers():
    class Counting(NTXentLoss):
        def __init__(self) -> None:
            super().__init__(0.5)
            self.step, self.seen = 0, []

        def forward(self, projections, ids):
            self.seen.append(self.step)
            return super().forward(projections, ids)

    loss = Counting()
    _trainer(_network(), loss_function=loss).run()
    assert loss.seen == [0, 1, 2, 3]
