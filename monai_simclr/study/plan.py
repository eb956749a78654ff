"""The settings of a study and its runs. Imports nothing heavy."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from monai_simclr.runtime.exit_codes import SettingError

ARMS: tuple[str, ...] = ("scratch", "random_frozen", "frozen", "finetuned")
"""The network from random weights; a linear probe on the encoder with random weights (the baseline of the next one); a
linear probe on the pretrained encoder; the pretrained encoder, fine-tuned. Any other arm is the name of an encoder that
was passed, fine-tuned."""

FROZEN = ("random_frozen", "frozen")
"""Arms whose encoder is not trained."""

RANDOM = ("scratch", "random_frozen")
"""Arms whose encoder has random weights at the start."""

OWN_SETTINGS: Mapping[str, str] = MappingProxyType(
    {
        "bundle_root": "name the bundle as BUNDLE",
        "dataset_dir": "pass --dataset-dir",
        "output_dir": "pass -o",
        "ckpt_path": "a study keeps scores and no classifiers; run configs/train.json for one",
        "encoder_path": "pass --arm NAME=FILE for another encoder",
        "pretrained": "it is that of the arms; choose them with --arms",
        "label_fraction": "pass --fractions",
        "draw": "pass --draws",
        "max_epochs": "pass --iterations, the steps of every training",
        "allow_seen_patients": "pass --allow-seen-patients",
        "findings": "set them in metadata.json, or make a bundle of them with monai-simclr bundle --findings",
    }
)
"""Settings of ``train.json`` that a study sets itself, and what to do instead of overriding them."""


class PlannedRun(NamedTuple):
    """One training: an arm, the share of the train patients whose labels it uses, and the draw of these patients."""

    arm: str
    fraction: float
    draw: int

    def __str__(self) -> str:
        return f"{self.arm}, {self.fraction:.2%} of patients, draw {self.draw + 1}"

    @property
    def frozen(self) -> bool:
        """Whether a linear probe is fitted on embeddings, and the encoder not trained."""
        return self.arm in FROZEN

    def folder(self, root: Path) -> Path:
        """Where the run's files go."""
        return root / "runs" / self.arm / f"{100 * self.fraction:g}percent" / f"draw{self.draw}"


@dataclass(frozen=True)
class Study:
    """Settings of a study.

    Attributes:
        bundle: folder of the bundle whose ``configs/train.json`` fine-tunes and whose ``models/`` has the encoder.
        dataset_dir: the archive, with splits and labels.
        output_dir: of the study; complete runs in it are not repeated.
        fractions: shares of the train patients, in (0, 1].
        draws: of labelled patients, for each fraction; the fractions of a draw are nested.
        arms: of `ARMS`, or names of `encoders`.
        encoders: name -> file of an encoder to fine-tune (ours, or a bare state dict .pt), besides the bundle's own.
        iterations: steps of every fine-tuning, whatever its fraction.
        training: other overrides of ``train.json`` (learning_rate, batch_size, n_trainable_stages, ...), for all arms,
            or for one arm with its name before the key: ``finetuned:layer_decay``.
        reference: the arm that the others are compared with.

    Raises:
        SettingError: if a fraction, the draws, the reference or an arm is unknown or out of range, or a setting is for
            an arm that is not trained, or one of `OWN_SETTINGS`.

    Example:
        >>> study = Study(Path("b"), Path("d"), Path("o"), fractions=(0.1, 1.0), draws=2, arms=("scratch", "frozen"))
        >>> len(list(study.runs())), next(study.runs())
        (8, PlannedRun(arm='scratch', fraction=0.1, draw=0))
    """

    bundle: Path
    dataset_dir: Path
    output_dir: Path
    fractions: tuple[float, ...] = (0.001, 0.01, 0.05, 0.1, 0.25, 1.0)
    draws: int = 5
    arms: tuple[str, ...] = ARMS
    encoders: Mapping[str, str] = field(default_factory=dict)
    iterations: int = 200
    training: Mapping[str, Any] = field(default_factory=dict)
    reference: str = "scratch"

    def __post_init__(self) -> None:
        if not self.fractions or not all(0 < fraction <= 1 for fraction in self.fractions):
            raise SettingError(
                f"fractions of patients are greater than 0 and at most 1 (100 %); got {list(self.fractions)}"
            )
        if not {*self.arms} <= {*ARMS, *self.encoders} or self.reference not in self.arms:
            raise SettingError(
                f"arms are {list(ARMS)} or encoders passed as --arm NAME=FILE, the reference one of them; got "
                f"{list(self.arms)} with the reference {self.reference!r}"
            )
        trained = [arm for arm in self.arms if arm not in FROZEN]
        misplaced = [key for key in self.training if ":" in key and key.partition(":")[0] not in trained]
        if misplaced:
            raise SettingError(f"settings of one arm are ARM:KEY=VALUE with an arm of {trained}; got {misplaced}")
        own = {key: OWN_SETTINGS[name] for key in self.training if (name := key.rpartition(":")[2]) in OWN_SETTINGS}
        if own:
            hints = "; ".join(f"{key} ({hint})" for key, hint in own.items())
            raise SettingError(f"--set cannot change what the study sets itself: {hints}")
        if self.draws < 1 or self.iterations < 1:
            raise SettingError(f"draws and iterations must be at least 1, got {self.draws} and {self.iterations}")

    def training_settings(self, arm: str) -> dict[str, Any]:
        """Overrides of ``train.json`` for one arm; its own take precedence over those for all arms.

        Example:
            >>> settings = {"learning_rate": 0.001, "finetuned:learning_rate": 0.0003}
            >>> study = Study(Path("b"), Path("d"), Path("o"), training=settings)
            >>> study.training_settings("scratch"), study.training_settings("finetuned")
            ({'learning_rate': 0.001}, {'learning_rate': 0.0003})
        """
        own = {key.partition(":")[2]: value for key, value in self.training.items() if key.startswith(f"{arm}:")}
        return {**{key: value for key, value in self.training.items() if ":" not in key}, **own}

    def absolute(self) -> Study:
        """The same study with absolute paths, for processes in other folders."""
        return replace(
            self,
            bundle=self.bundle.absolute(),
            dataset_dir=self.dataset_dir.absolute(),
            output_dir=self.output_dir.absolute(),
            encoders={name: str(Path(file).absolute()) for name, file in self.encoders.items()},
        )

    def runs(self) -> Iterator[PlannedRun]:
        """Every run, all arms of a draw together, so that arms can be compared before the study is complete."""
        for draw, fraction, arm in itertools.product(range(self.draws), self.fractions, self.arms):
            yield PlannedRun(arm, fraction, draw)


def parse_fractions(text: str) -> tuple[float, ...]:
    """Fractions from percents joined by commas, as a person types them.

    Example:
        >>> parse_fractions("0.1,1,100")
        (0.001, 0.01, 1.0)
    """
    try:
        return tuple(round(float(part) / 100, 9) for part in text.split(",") if part.strip())
    except ValueError:
        raise SettingError(f"fractions are percents joined by commas, such as 1,10,100; got {text!r}") from None
