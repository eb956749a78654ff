"""The command `monai-simclr`: parse, call one function, say what was made. Imports nothing heavy."""

from __future__ import annotations

import sys
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated

import typer

from monai_simclr._version import __version__
from monai_simclr.runtime.exit_codes import exit_code, format_error
from monai_simclr.runtime.names import register_escapes
from monai_simclr.runtime.signals import Stopped, stoppable

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
    from monai_simclr.cli.demo import run_demo

    run_demo(output_dir, patients=patients, epochs=epochs, draws=draws)


@app.command()
def bundle(
    folder: Annotated[Path, typer.Argument(help="New folder for the bundle.")],
    findings: Annotated[str, typer.Option(help="Names joined by commas; NIH's fourteen when left out.")] = "",
    size: Annotated[int | None, typer.Option(help="Side of the network's images in pixels.")] = None,
    encoder: Annotated[str | None, typer.Option(help="resnet10, resnet18, resnet34, resnet50 or densenet121.")] = None,
    width: Annotated[float | None, typer.Option(help="Factor on the encoder's channels.")] = None,
    norm: Annotated[str | None, typer.Option(help="Normalization of the encoder: batch or group.")] = None,
    own_findings: Annotated[
        bool, typer.Option("--own-findings", help="Take names that look like misspellings: my index has them.")
    ] = False,
) -> None:
    """Write the MONAI Bundle to a folder, ready for `python -m monai.bundle run`."""
    from monai_simclr.workflows.bundle import copy_bundle

    _show_log()
    names = [name.strip() for name in findings.split(",") if name.strip()]
    made = copy_bundle(folder, names, size, encoder, width, norm, own_findings)
    command = f"cd {made} && python -m monai.bundle run --config_file configs/pretrain.json --dataset_dir DIR"
    typer.echo(f"made {made}; next: {command}")


@app.command()
def export(
    bundle: Annotated[Path, typer.Argument(help="A bundle with a trained classifier.")],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="The new file, .onnx or .ts (TorchScript), or folder, for MONAI Deploy."),
    ],
    int8: Annotated[
        Path | None, typer.Option(help="An 8-bit .onnx, smaller and faster; folder of train images to calibrate it on.")
    ] = None,
) -> None:
    """Write a trained classifier for another runtime, with findings, preprocessing and thresholds inside."""
    from monai_simclr.workflows.export import export_folder, export_int8, export_onnx, export_torchscript

    kinds = {".onnx": export_onnx, ".ts": export_torchscript, "": export_folder}
    if output.suffix not in kinds:
        raise typer.BadParameter(
            f"a file's name must end in .onnx or .ts, a folder's in nothing, got {output.name}", param_hint="--output"
        )
    if int8 is not None and output.suffix != ".onnx":
        raise typer.BadParameter(f"only .onnx files can be int8, got {output.name}", param_hint="--output")
    made = kinds[output.suffix](bundle, output) if int8 is None else export_int8(bundle, output, int8)
    typer.echo(f"made {made}")


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(help="The bundle to read.")],
    everything: Annotated[bool, typer.Option("--all", help="List what our own bundle runs, too.")] = False,
) -> None:
    """Read a bundle as text and list what it would run that ours does not; exit code 3 if there is anything."""
    from monai_simclr.workflows.verify import verify_bundle

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
    from monai_simclr.data.phantoms import write_dicom_phantoms, write_nih_phantoms

    write = write_dicom_phantoms if dicom else write_nih_phantoms
    typer.echo(f"made {write(folder, n_patients=patients, size=size, seed=seed)}")


@app.command()
def preview(
    dataset_dir: Annotated[Path, typer.Argument(help="Archive: index.csv, NIH folder, DICOM files or images.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="PNG file to write.")] = Path("preview.png"),
    strength: Annotated[str, typer.Option(help="mild, default, moco_cxr, simclr or phantom.")] = "default",
    size: Annotated[int, typer.Option(help="Pixels along each side of a view.", min=32, max=1000)] = 224,
    images: Annotated[int, typer.Option(help="Radiographs to show, drawn at random.", min=1, max=64)] = 8,
    seed: Annotated[int, typer.Option(help="Another seed shows others.", min=0)] = 0,
) -> None:
    """Show what training would see: radiographs with the lungs' box, lung crops and views, on one sheet."""
    from monai_simclr.cli.preview import STRENGTHS, write_preview

    if strength not in STRENGTHS:
        raise typer.BadParameter(f"{strength!r} is none of {', '.join(STRENGTHS)}", param_hint="--strength")
    made = write_preview(dataset_dir, output, strength, size, images, seed)  # type: ignore[arg-type]
    typer.echo(f"made {made.path}: {made.shown} radiographs, lungs of {made.guessed} not found, {made.rejected} unread")


@app.command()
def store(
    archive: Annotated[Path, typer.Argument(help="Folder of an archive, or an index.csv.")],
    folder: Annotated[Path, typer.Option("--output", "-o", help="Folder of the store.")],
    size: Annotated[int, typer.Option(help="Side of the stored images in pixels.", min=1)] = 256,
    workers: Annotated[int | None, typer.Option(help="Processes that decode; all cores when left out.", min=0)] = None,
    max_rejected: Annotated[float, typer.Option(help="Share of images that may be damaged.", min=0, max=1)] = 0.05,
    squash: Annotated[bool, typer.Option("--squash", help="Resize without padding to a square.")] = False,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Replace a store of other settings.")] = False,
    reader: Annotated[list[str] | None, typer.Option(help="A setting of the reader, as voi=percentile.")] = None,
) -> None:
    """Decode every radiograph of an archive once into a store; after a stop, the same command resumes."""
    import logging

    from monai_simclr.cli.store import parse_reader, run_store_command
    from monai_simclr.data.store import StoreOptions

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = StoreOptions(squash, parse_reader(reader or []), rebuild)
    typer.echo(run_store_command(archive, folder, size, workers, max_rejected, options))


@app.command()
def study(
    bundle: Annotated[Path, typer.Argument(help="Bundle with a pretrained encoder in models/.")],
    dataset_dir: Annotated[Path, typer.Option(help="Archive with labels and splits.")],
    output_dir: Annotated[Path, typer.Option("--output-dir", "-o", help="Folder of the study.")] = Path("study"),
    fractions: Annotated[str, typer.Option(help="Percents of the train patients.")] = "0.1,1,5,10,25,100",
    draws: Annotated[int, typer.Option(help="Draws of labelled patients.", min=1)] = 5,
    arms: Annotated[str, typer.Option(help="Ways of training.")] = "scratch,random_frozen,frozen,finetuned",
    arm: Annotated[list[str] | None, typer.Option(help="NAME=FILE: another encoder to fine-tune.")] = None,
    reference: Annotated[str, typer.Option(help="The arm that the others are compared with.")] = "scratch",
    iterations: Annotated[int, typer.Option(help="Steps of every fine-tuning.", min=1)] = 200,
    override: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE of train.json; ARM:KEY=VALUE for one arm.")
    ] = None,
    shard: Annotated[str, typer.Option(help="1/2: this process takes every second run.")] = "1/1",
    allow_seen_patients: Annotated[bool, typer.Option(help="Score patients whom pretraining saw.")] = False,
) -> None:
    """Measure how many labels pretraining saves: fractions x draws x arms, resumable, one table and one curve."""
    from monai_simclr.study.plan import Study, parse_fractions, parse_shard

    encoders, training = _pairs(arm), {key: _literal(value) for key, value in _pairs(override).items()}
    names = (*(name.strip() for name in arms.split(",") if name.strip()), *encoders)
    plan = Study(
        bundle,
        dataset_dir,
        output_dir,
        parse_fractions(fractions),
        draws,
        names,
        encoders,
        iterations,
        training,
        reference,
    )
    part = parse_shard(shard)
    from monai_simclr.study import run_study

    typer.echo(f"made {run_study(plan, part, allow_seen_patients)}; next: monai-simclr report {output_dir}")


@app.command()
def select(
    embeddings: Annotated[Path, typer.Argument(help="embeddings.npz that configs/cluster.json left.")],
    budget: Annotated[int, typer.Option(help="How many images can be labelled.", min=1)] = 50,
    output: Annotated[Path, typer.Option("--output", "-o", help="The work list, CSV.")] = Path("worklist.csv"),
    labelled: Annotated[Path | None, typer.Option(help="CSV with a column image: what has labels already.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same list.")] = 0,
) -> None:
    """List the images to label next: typical ones that cover the archive, one a patient, no labels needed."""
    from monai_simclr.cli.worklists import write_worklist

    typer.echo(f"made {write_worklist(embeddings, budget, output, labelled, seed)}; label these, then train")


@app.command()
def similar(
    embeddings: Annotated[Path, typer.Argument(help="embeddings.npz that configs/cluster.json left.")],
    image: Annotated[str, typer.Argument(help="Path or file name of one of its images.")],
    n: Annotated[int, typer.Option("-n", help="How many studies.", min=1)] = 10,
) -> None:
    """List the studies most like one image, at most one a patient, its own patient left out."""
    from monai_simclr.cli.worklists import list_similar

    list_similar(embeddings, image, n)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs or studies, or a bundle's output folder.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The page.")] = Path("report.html"),
    title: Annotated[str, typer.Option(help="Of the page.")] = "monai-simclr: report",
    notice: Annotated[str, typer.Option(help="A banner on top.")] = "",
    store: Annotated[Path | None, typer.Option(help="Image store, when it is not in the bundle's cache.")] = None,
) -> None:
    """Write one page that shows what was run, on whom, how well, and what may have been learned instead."""
    from monai_simclr.report import collect_runs, write_report

    made = write_report(output, title=title, notice=notice, material=collect_runs(runs, store))
    typer.echo(f"made {made}; it opens without a network; treat it as patient data")


def _pairs(given: list[str] | None) -> dict[str, str]:
    """``NAME=VALUE`` options as a mapping."""
    wrong = [text for text in given or [] if "=" not in text]
    if wrong:
        raise typer.BadParameter(f"write NAME=VALUE, not {wrong[0]!r}")
    return {name.strip(): value for name, _, value in (text.partition("=") for text in given or [])}


def _literal(text: str) -> object:
    """A number, a truth value or None where the text is one, else the text."""
    import ast

    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


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
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors=register_escapes())
    try:
        with stoppable():
            app()
    except SystemExit as stop:  # typer turns Ctrl-C into a silent exit
        asked = getattr(stop.__context__, "__cause__", None)
        if isinstance(asked, KeyboardInterrupt):
            print(format_error(asked), file=sys.stderr)
        raise
    except (Exception, Stopped) as error:
        if _debug:
            raise
        print(format_error(error), file=sys.stderr)
        raise SystemExit(exit_code(error)) from None


if __name__ == "__main__":
    main()
