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
def export(
    bundle: Annotated[Path, typer.Argument(help="A bundle with a trained classifier.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The new file: .onnx or .ts (TorchScript).")],
) -> None:
    """Write a trained classifier as ONNX or TorchScript, with findings, preprocessing and thresholds inside."""
    from monai_simclr.exporting import export_onnx, export_torchscript

    kinds = {".onnx": export_onnx, ".ts": export_torchscript}
    if output.suffix not in kinds:
        raise typer.BadParameter(f"the name must end in .onnx or .ts, got {output.name}", param_hint="--output")
    typer.echo(f"made {kinds[output.suffix](bundle, output)}")


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(help="The bundle to read.")],
    everything: Annotated[bool, typer.Option("--all", help="List what our own bundle runs, too.")] = False,
) -> None:
    """Read a bundle as text and list what it would run that ours does not; exit code 3 if there is anything."""
    from monai_simclr.verifying import verify_bundle

    found = verify_bundle(folder)
    for one in found:
        if everything or not one.known:
            typer.echo(f"{'known' if one.known else 'OTHER'}  {one.file}  {one.where}  {one.text}")
    others = sum(not one.known for one in found)
    typer.echo(f"{len(found)} things would run, {others} of them are not in the bundle of monai-simclr {__version__}")
    if others:
        raise typer.Exit(3)


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
