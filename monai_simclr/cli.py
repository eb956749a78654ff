"""The command `monai-simclr`: parse, call one function, say what was made. Imports nothing heavy."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from monai_simclr._version import __version__
from monai_simclr.exits import exit_code, last_line

__all__ = ["app", "main"]

app = typer.Typer(
    help="Self-supervised learning on chest radiographs with MONAI. Research only, not for diagnosis.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_debug = False


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    global _debug
    _debug = debug
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command()
def demo(
    output_dir: Annotated[Path, typer.Option("--output-dir", "-o", help="Folder to work in.")] = Path("demo"),
    patients: Annotated[int, typer.Option(help="Phantom patients to draw.", min=120)] = 600,
    epochs: Annotated[int, typer.Option(help="Epochs of pretraining.", min=1)] = 30,
    draws: Annotated[int, typer.Option(help="Draws of few labels.", min=2)] = 5,
) -> None:
    """Run the whole main job on drawn phantoms, in a few minutes on two cores, and print the table of results."""
    from monai_simclr.demo import run_demo

    run_demo(output_dir, patients=patients, epochs=epochs, draws=draws)


@app.command()
def bundle(
    folder: Annotated[Path, typer.Argument(help="New folder for the bundle.")],
    findings: Annotated[str, typer.Option(help="Names joined by commas; NIH's fourteen when left out.")] = "",
    size: Annotated[int | None, typer.Option(help="Side of the network's images in pixels.")] = None,
    encoder: Annotated[str | None, typer.Option(help="resnet18, resnet34, resnet50 or densenet121.")] = None,
    width: Annotated[float | None, typer.Option(help="Factor on the encoder's channels.")] = None,
) -> None:
    """Write the MONAI Bundle to a folder, ready for `python -m monai.bundle run`."""
    from monai_simclr.bundling import copy_bundle

    names = [name.strip() for name in findings.split(",") if name.strip()]
    made = copy_bundle(folder, names, size, encoder, width)
    command = f"cd {made} && python -m monai.bundle run --config_file configs/pretrain.json --dataset_dir DIR"
    typer.echo(f"made {made}; next: {command}")


@app.command()
def phantoms(
    folder: Annotated[Path, typer.Argument(help="New folder for the files.")],
    patients: Annotated[int, typer.Option(help="How many patients to draw.", min=1)] = 300,
    size: Annotated[int, typer.Option(help="Side of the images in pixels.", min=64, max=1024)] = 256,
    dicom: Annotated[bool, typer.Option("--dicom", help="DICOM files instead of an NIH folder.")] = False,
    seed: Annotated[int, typer.Option(help="The same seed draws the same patients.")] = 0,
) -> None:
    """Draw chest phantoms: an archive for trying things; its numbers say nothing about patients."""
    from monai_simclr.data.phantom_files import write_dicom_phantoms, write_nih_phantoms

    write = write_dicom_phantoms if dicom else write_nih_phantoms
    typer.echo(f"made {write(folder, n_patients=patients, size=size, seed=seed)}")


_Dataset = Annotated[Path, typer.Argument(help="Folder of an archive, an index.csv, any CSV, or a MedMNIST .npz file.")]
_Options = Annotated[
    list[str] | None,
    typer.Option("--option", "-O", help="NAME=VALUE for the archive's reader, as uncertain=ones; may be repeated."),
]


@app.command()
def index(
    dataset: _Dataset,
    output: Annotated[Path, typer.Option("--output", "-o", help="CSV file to write.")] = Path("index.csv"),
    option: _Options = None,
    split: Annotated[bool, typer.Option("--split", help="Split patients at random, 70 / 10 / 20 %.")] = False,
    seed: Annotated[int, typer.Option(help="Of the split.")] = 0,
) -> None:
    """Write the image index of an archive: one row an image, which every other command takes."""
    from monai_simclr.data import open_index, split_by_patient, write_index
    from monai_simclr.data.options import options_from_text

    _show_log()
    table = open_index(dataset, **options_from_text(option or []))
    made = write_index(split_by_patient(table, seed=seed) if split else table, output)
    typer.echo(f"made {made}: {len(table)} images; next: monai-simclr audit {made} -o audit --pixels")


@app.command()
def audit(
    dataset: _Dataset,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the page and the tables.")] = Path("audit"),
    pixels: Annotated[bool, typer.Option("--pixels", help="Read the images too, not only headers.")] = False,
    pictures: Annotated[bool, typer.Option("--pictures", help="Small pictures on the page (patient data).")] = False,
    workers: Annotated[int, typer.Option(help="Processes that read files.", min=0)] = 2,
    option: _Options = None,
) -> None:
    """Look an archive over before training: headers, splits, leaks, duplicates, confounders. Exit code 3 on a leak."""
    from monai_simclr.audit import run_audit
    from monai_simclr.data.options import options_from_text

    _show_log()
    options = options_from_text(option or [])
    found = run_audit(dataset, output, pixels=pixels, workers=workers, pictures=pictures, options=options)
    typer.echo(f"made {found.page}, {output / 'audit.json'}, {output / 'images.csv'}")
    if found.leaks:
        print(f"LEAK: {'; '.join(found.leaks)}; see {found.page}, and split by patient", file=sys.stderr)
        raise typer.Exit(3)


def _show_log() -> None:
    """What a source was taken for and what it warns of, on stderr."""
    import logging

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("monai_simclr").setLevel(logging.INFO)


def main() -> None:
    """Run the command, and end with a sentence and an exit code that says of which kind an error was."""
    try:
        app()
    except (KeyboardInterrupt, Exception) as error:
        if _debug:
            raise
        print(last_line(error), file=sys.stderr)
        raise SystemExit(exit_code(error)) from None


if __name__ == "__main__":
    main()
