"""A slip in a setting is refused before any work, with the setting, what came and what is possible."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from bundle_command import Forked
from monai.bundle import ConfigWorkflow, create_workflow

from monai_simclr.runtime.exit_codes import SettingError, exit_code, format_error, root_cause
from monai_simclr.workflows.bundle import copy_bundle
from monai_simclr.workflows.settings import check_settings

pytestmark = pytest.mark.filterwarnings("ignore")

ALL = (["pretrain"], ["train"], ["cluster"], ["inference"], ["train", "evaluate"])


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_bundle(tmp_path_factory.mktemp("settings") / "bundle", ["Mass", "Edema"], size=56, width=0.25)


def _made(bundle: Path, names: list[str], by_hand: bool = False, **given: Any) -> ConfigWorkflow:
    files = [str(bundle / "configs" / f"{name}.json") for name in names]
    settings = {"bundle_root": str(bundle), "logging_file": False, **given}
    if not by_hand:
        return create_workflow(config_file=files, **settings)
    workflow = ConfigWorkflow(files, **settings)
    workflow.initialize()
    return workflow


def _refusal(bundle: Path, names: list[str], by_hand: bool = False, **given: Any) -> str:
    with pytest.raises((RuntimeError, SettingError)) as caught:
        _made(bundle, names, by_hand, **given)
    assert isinstance(root_cause(caught.value), SettingError), format_error(caught.value)
    assert exit_code(caught.value) == 2
    assert "bug of ours" not in format_error(caught.value)
    return str(root_cause(caught.value))


@pytest.mark.parametrize("by_hand", [False, True])
@pytest.mark.parametrize("names", ALL, ids=" ".join)
@pytest.mark.parametrize("tracking", [None, "mlflow"])
def test_what_we_ship_passes_also_with_monais_own_arguments(
    bundle: Path, tmp_path: Path, names: list[str], by_hand: bool, tracking: str | None
) -> None:
    meta = str(bundle / "configs" / "metadata.json")
    _made(bundle, names, by_hand, tracking=tracking, output_dir=str(tmp_path), meta_file=meta, run_id="run")


@pytest.mark.parametrize("by_hand", [False, True])
@pytest.mark.parametrize(
    ("names", "given", "message"),
    [
        (["pretrain"], {"stength": "phantom"}, ["there is no setting 'stength'; the nearest is 'strength'"]),
        (
            ["pretrain"],
            {"stength": "phantom", "lerning_rate": 5},
            ["'stength'", "there is no setting 'lerning_rate'; the nearest is 'learning_rate'"],
        ),
        (["pretrain"], {"label_fraction": 0.5}, ["there is no setting 'label_fraction'; there are "]),
        (["pretrain"], {"val_interval": 5}, ["there is no setting 'val_interval'"]),
        (["train"], {"temperature": 0.5}, ["there is no setting 'temperature'"]),
        (["train", "evaluate"], {"n_bootstrp": 5}, ["the nearest is 'n_bootstrap'"]),
        (["cluster"], {"Method": "kmeans"}, ["the nearest is 'method'"]),
        (["pretrain"], {"train#lossx": 1}, ["there is no setting 'train#lossx'; the nearest is 'train#loss'"]),
        (["pretrain"], {"train#loss#temprature": 0.1}, ["the nearest is 'train#loss#temperature'"]),
        (
            ["pretrain"],
            {"train#loss#temperature": "@temprature"},
            ["the config has no 'temprature', which @temprature refers to; the nearest is 'temperature'"],
        ),
        (["pretrain"], {"train#trainer#network": "$@network_deff.eval()"}, ["the nearest is 'network_def'"]),
        (["inference"], {"outputs#overlay": True}, ["the nearest is 'outputs#overlays'"]),
        (["pretrain"], {"gradient_length": 1.0}, ["it is called 'max_grad_norm' since version 0.2"]),
        (["pretrain"], {"keep": 3}, ["it is called 'n_saved' since version 0.2"]),
        (["train"], {"frozen": True}, ["it is called 'freeze_encoder' since version 0.2"]),
        (["cluster"], {"k": [6]}, ["it is called 'n_clusters' since version 0.2"]),
        (["inference"], {"keep": {"overlays": True}}, ["it is called 'outputs' since version 0.2"]),
        (["pretrain"], {"_meta_#encoder#nmae": "resnet18"}, ["the nearest is '_meta_#encoder#name'"]),
        (["pretrain"], {"train#handlers#0#reprt": "x"}, ["the nearest is 'train#handlers#0#report'"]),
        (
            ["train"],
            {"train#loss": {"_target_": "monai_simclr.losses.MaskedBCEWithLogits", "pos_wieght": None}},
            ["the nearest is 'train#loss#pos_weight'"],
        ),
    ],
)
def test_a_key_that_nothing_reads_is_refused_with_the_nearest(
    bundle: Path, names: list[str], given: dict[str, Any], message: list[str], by_hand: bool
) -> None:
    refusal = _refusal(bundle, names, by_hand, **given)
    assert all(part in refusal for part in message), refusal


@pytest.mark.parametrize(
    "given",
    [
        {"train#loss": {"_target_": "monai_simclr.losses.NTXentLoss", "temperature": 0.1}},
        {"train#views": {"_target_": "monai_simclr.recipes.views", "strength": "mild"}},
        {"train#loss#same_group": "negative"},
        {"scheduler#warmup_iterations": 3},
        {"size": "$16 * 4"},
        {"mine": 0.3, "temperature": "@mine"},
    ],
    ids=str,
)
def test_overrides_that_something_reads_pass_and_what_they_replace_stays_known(
    bundle: Path, given: dict[str, Any]
) -> None:
    _made(bundle, ["pretrain"], temperature=given.pop("temperature", 0.4), strength="mild", **given)


@pytest.mark.parametrize(
    ("name", "key", "value", "message"),
    [
        ("pretrain", "batch_size", "eight", "batch_size must be a whole number of at least 1, got 'eight'"),
        ("pretrain", "batch_size", True, "a whole number"),
        ("pretrain", "batch_size", 0, "of at least 1, got 0"),
        ("pretrain", "batch_size", 32.5, "a whole number"),
        ("pretrain", "max_epochs", -3, "of at least 1, got -3"),
        ("pretrain", "learning_rate", float("nan"), "a number above 0, got nan"),
        ("pretrain", "learning_rate", "fast", "a number above 0, got 'fast'"),
        ("pretrain", "learning_rate", [0.1], "a number above 0"),
        ("pretrain", "splits", "train", "splits must be a list of 'train', 'val', 'test', '', with its brackets"),
        ("pretrain", "splits", ["trian"], "got ['trian']"),
        ("pretrain", "splits", [], "a list of"),
        ("pretrain", "device", "gpu", "a device's name, such as cpu or cuda:0, got 'gpu'"),
        ("pretrain", "device", "cuda:99", "an available device"),
        ("pretrain", "dataset_dir", 2024, "dataset_dir must be a path, as text; a folder of that name is ./2024"),
        ("pretrain", "output_dir", 7, "output_dir must be a path"),
        ("pretrain", "output_dir", "", "output_dir must be a path"),
        ("pretrain", "compile", "yes", "compile must be True or False, got 'yes'"),
        ("pretrain", "n_saved", 0, "n_saved must be a whole number of at least 1"),
        ("pretrain", "strength", "strong", "one of mild, default, moco_cxr, simclr, phantom, got 'strong'"),
        ("pretrain", "precision", "bf16", "one of auto, float32, bfloat16, float16, got 'bf16'"),
        (
            "pretrain",
            "size_schedule",
            [[64, 0.4], [96, 0.4]],
            "size_schedule must be pairs of a size and its share of the",
        ),
        ("pretrain", "size_schedule", [64, 96], "which sum to 1, as in [[64, 0.4], [128, 0.6]], got [64, 96]"),
        ("pretrain", "size_schedule", [["64", 1]], "size_schedule must be pairs"),
        ("pretrain", "max_unreadable", 5, "at most 1, got 5"),
        ("pretrain", "seed", -1, "seed must be a whole number of at least 0"),
        ("pretrain", "size", "big", "size must be a whole number of at least 32, got 'big'"),
        ("pretrain", "temperature", "$1 / 0", "temperature is '$1 / 0', which fails: division by zero"),
        ("pretrain", "temperature", "@nothing", "the config has no 'nothing', which @nothing refers to"),
        ("pretrain", "_meta_#encoder#width", "wide", "_meta_#encoder#width must be a number above 0"),
        ("pretrain", "_meta_#encoder#name", "resnet81", "got 'resnet81'"),
        ("pretrain", "_meta_#defaults#weight_decay", -1, "_meta_#defaults#weight_decay must be a number"),
        ("pretrain", "train#loss#same_group", "negativ", "train#loss#same_group must be one of"),
        ("pretrain", "train#checkpoint#n_saved", "three", "train#checkpoint#n_saved must be a whole number"),
        ("pretrain", "run_id", "val", "write lists with brackets"),
        (
            "cluster",
            "n_clusters",
            6,
            "n_clusters must be a list of whole numbers of at least 2 and 'auto', with its brackets: \"[6]\"",
        ),
        ("cluster", "n_clusters", "auto", "with its brackets: \"['auto']\""),
        ("cluster", "n_clusters", [6, 6], "each once, got [6, 6]"),
        ("cluster", "n_clusters", [True], "each once, got [True]"),
        ("cluster", "method", "kmeens", "one of auto, kmeans,"),
        ("cluster", "engine", "spark://host:7077", "there is no engine 'spark://host:7077'; there are processes,"),
        ("train", "findings", "Effusion", "findings must be a list of names, with its brackets: \"['Effusion']\""),
        ("train", "findings", ["Mass", "Mass"], "the finding 'Mass' is named twice"),
        ("train", "findings", [3], "got 3"),
        ("train", "label_fraction", 10, "label_fraction must be a number above 0 and at most 1, got 10"),
        ("train", "label_fraction", 0, "above 0"),
        ("train", "n_trainable_stages", 1.5, "or null, got 1.5"),
        ("train", "freeze_encoder", 1, "freeze_encoder must be True or False, got 1"),
        ("train", "n_bootstrap", "many", "n_bootstrap must be a whole number"),
        ("inference", "outputs#overlays", "yes", "outputs#overlays must be True or False, got 'yes'"),
        ("inference", "outputs", {"overlays": True}, "--outputs#overlays True"),
        ("inference", "outputs", 3, "--outputs#overlays True"),
        ("inference", "watch", -1, "watch must be a number of at least 0"),
        ("inference", "dataset_dir", ["a", 3], "a list of paths"),
        ("inference", "num_workers", -1, "num_workers must be a whole number of at least 0"),
    ],
)
def test_a_value_that_a_setting_cannot_have_is_refused(
    bundle: Path, name: str, key: str, value: object, message: str
) -> None:
    assert message in _refusal(bundle, [name], **{key: value})


def test_every_setting_of_every_config_has_a_rule() -> None:
    from monai_simclr.bundles import CHEST_XRAY_SIMCLR

    from monai_simclr.workflows.setting_rules import RULES

    described = {
        key
        for path in (CHEST_XRAY_SIMCLR / "configs").glob("*.json")
        for key in json.loads(path.read_text(encoding="utf-8")).get("_desc_", {})
    }
    assert described - {"command"} - set(RULES) == set()


@pytest.mark.parametrize("name", ["pretrain", "train"])
def test_the_overlay_for_several_processes_goes_with_every_training(
    bundle: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "0")
    files = [str(bundle / "configs" / f"{part}.json") for part in (name, "multi_gpu_train")]
    check_settings(ConfigWorkflow(files, logging_file=False, bundle_root=str(bundle)))


def test_multi_gpu_train_is_refused_where_nothing_is_trained(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "0")
    for name in ("inference", "cluster"):
        assert "spread by --engine" in _refusal(bundle, [name, "multi_gpu_train"])


def test_multi_gpu_train_without_torchrun_is_refused(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert "torchrun --nproc_per_node=N" in _refusal(bundle, ["pretrain", "multi_gpu_train"])


def _run(bundle: Path, output: Path, *arguments: str) -> tuple[int | None, str]:
    """A command's exit code, and what it wrote to stderr."""
    command = Forked(bundle, output, [sys.executable, "-W", "ignore", "-m", "monai.bundle", "run", *arguments])
    _, errors = command.communicate()
    return command.returncode, errors


def test_the_command_ends_with_2_and_one_line_and_leaves_nothing(bundle: Path, tmp_path: Path) -> None:
    slips = ["--stength", "phantom", "--lerning_rate", "5"]
    code, errors = _run(bundle, tmp_path, "--config_file", "configs/pretrain.json", *slips)
    assert code == 2
    assert "Traceback" not in errors
    assert "the nearest is 'strength'" in errors.splitlines()[-1]
    assert not (bundle / "output").exists()
    assert not (bundle / "cache").exists()


@pytest.mark.slow
def test_a_typo_in_an_args_file_or_in_an_overlay_is_refused_too(bundle: Path, tmp_path: Path) -> None:
    slip = {"stength": "phantom"}
    (tmp_path / "args.json").write_text(json.dumps({"config_file": "configs/pretrain.json", **slip}))
    (tmp_path / "mine.json").write_text(json.dumps(slip))
    for arguments in (
        ["--args_file", str(tmp_path / "args.json")],
        ["--config_file", f"['configs/pretrain.json','{tmp_path / 'mine.json'}']"],
    ):
        code, errors = _run(bundle, tmp_path, *arguments)
        assert code == 2
        assert "the nearest is 'strength'" in errors.splitlines()[-1]


@pytest.mark.slow
def test_a_key_below_a_missing_part_does_no_work(bundle: Path, tmp_path: Path) -> None:
    """MONAI itself refuses it, before it runs a step of ours: with its own traceback, which names the nearest."""
    key = ["--train#lossx#temperature", "0.1"]
    code, errors = _run(bundle, tmp_path, "--config_file", "configs/pretrain.json", *key)
    assert code == 1
    assert "By 'lossx', did you mean 'loss'?" in errors
    assert not (bundle / "output").exists()


def test_the_same_key_through_a_command_of_ours_is_one_line(bundle: Path) -> None:
    with pytest.raises(KeyError) as caught:
        _made(bundle, ["pretrain"], **{"train#lossx#temperature": 0.1})
    assert exit_code(caught.value) == 2
    assert (
        format_error(caught.value) == "SettingError: the config has no part 'lossx'; by 'lossx', did you mean 'loss'?"
    )
