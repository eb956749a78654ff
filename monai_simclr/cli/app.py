"""The command `monai-simclr`: parse, call one function, print what was written. Imports nothing heavy."""

from __future__ import annotations

import ast
import atexit
import contextlib
import gc
import json
import logging
import sys
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

from monai_simclr._version import __version__
from monai_simclr.runtime.exit_codes import DATA, exit_code, format_error
from monai_simclr.runtime.names import register_escapes
from monai_simclr.runtime.signals import Stopped, stoppable

app = typer.Typer(
    help="Self-supervised learning on chest radiographs with MONAI. Research only, not for diagnosis.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: nothing cut, read by pipes and screen readers, and a third less to import
    context_settings={"max_content_width": 100},
)

_Engine = Annotated[
    str, Option(help="processes, dask://HOST:PORT, dask+tls://HOST:PORT or dask://local; see docs/how-to/at-scale.md.")
]


_Json = Annotated[bool, Option("--json", help="Print the result as one JSON object on stdout, and nothing else there.")]


def _answer(as_json: bool, text: str, **facts: Any) -> None:
    """Print the closing line of a command, or its facts as JSON."""
    from monai_simclr.runtime.metrics import plain

    typer.echo(json.dumps(plain(facts), allow_nan=False) if as_json else text)


def _aside(as_json: bool) -> contextlib.AbstractContextManager[Any]:
    """What is printed on the way goes to stderr when stdout is kept for JSON."""
    return contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext()


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, Option("--version", help="Print the version and exit.")] = False,
    debug: Annotated[bool, Option("--debug", help="Show the traceback of an error (read by `main`).")] = False,
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command()
def demo(
    output_dir: Annotated[Path, Option("--output-dir", "-o", help="Folder to work in.")] = Path("demo"),
    patients: Annotated[int, Option(help="Phantom patients to draw.", min=120)] = 600,
    epochs: Annotated[int, Option(help="Epochs of pretraining.", min=1)] = 30,
    draws: Annotated[int, Option(help="Draws of labelled patients.", min=2)] = 5,
    pretrained: Annotated[
        bool,
        Option("--pretrained", help="Start from chest_xray_resnet18, and show what that changes: 3.5 times as long."),
    ] = False,
    as_json: _Json = False,
) -> None:
    """Run the whole workflow on drawn phantoms, in a few minutes. Prints five rows of results."""
    from monai_simclr.cli.demo import ENCODERS_TITLE, run_demo
    from monai_simclr.runtime.metrics import print_table

    result = run_demo(output_dir, patients=patients, epochs=epochs, draws=draws, pretrained=pretrained)
    if not as_json:
        print_table(result.rows, title="What the encoder learned, on held-out phantom patients, with 95 % intervals")
        if result.encoders:
            print_table(result.encoders, title=ENCODERS_TITLE)
    facts = {"notice": result.notice, "rows": result.rows, "encoders": result.encoders, "report": result.report}
    _answer(as_json, f"{result.notice}\nReport: {result.report}", **facts)


@app.command()
def bundle(
    folder: Annotated[Path, Argument(help="New folder for the bundle.")],
    findings: Annotated[str, Option(help="Names joined by commas; NIH's fourteen by default.")] = "",
    size: Annotated[int | None, Option(help="Side of the network's images in pixels.")] = None,
    encoder: Annotated[
        str | None, Option(help="resnet10, resnet18, resnet34, resnet50, densenet121 or timm/NAME.")
    ] = None,
    width: Annotated[float | None, Option(help="Factor on the encoder's channels.")] = None,
    norm: Annotated[str | None, Option(help="Normalization of the encoder: batch or group.")] = None,
    own_findings: Annotated[
        bool, Option("--own-findings", help="Accept names that look misspelled: my index has them.")
    ] = False,
    with_code: Annotated[
        bool, Option("--with-code", help="Add a copy of monai_simclr, for where it cannot be installed.")
    ] = False,
    as_json: _Json = False,
) -> None:
    """Write the MONAI Bundle to a folder. Ready for `python -m monai.bundle run`."""
    from monai_simclr.workflows.bundle import copy_bundle

    _show_log()
    names = [name.strip() for name in findings.split(",") if name.strip()]
    path = copy_bundle(folder, names, size, encoder, width, norm, own_findings, with_code)
    command = f"cd {path} && python -m monai.bundle run --config_file configs/pretrain.json --dataset_dir DIR"
    _answer(as_json, f"made {path}; next: {command}", bundle=path, next=command)


@app.command(epilog="Example: monai-simclr export my_bundle -o classifier.onnx")
def export(
    bundle: Annotated[Path, Argument(help="A bundle with a trained classifier.")],
    output: Annotated[
        Path, Option("--output", "-o", help="New .onnx or .ts (TorchScript) file, or folder for MONAI Deploy.")
    ],
    int8: Annotated[
        Path | None, Option(help="Write an 8-bit .onnx, calibrated on train images of this folder.")
    ] = None,
    as_json: _Json = False,
) -> None:
    """Export a trained classifier for another runtime. Findings, preprocessing and thresholds are inside."""
    from monai_simclr.workflows.export import export_folder, export_int8, export_onnx, export_torchscript

    kinds = {".onnx": export_onnx, ".ts": export_torchscript, "": export_folder}
    if output.suffix not in kinds:
        raise typer.BadParameter(
            f"a file's name must end in .onnx or .ts, a folder's in nothing, got {output.name}", param_hint="--output"
        )
    if int8 is not None and output.suffix != ".onnx":
        raise typer.BadParameter(f"only .onnx files can be int8, got {output.name}", param_hint="--output")
    with _aside(as_json):
        path = kinds[output.suffix](bundle, output) if int8 is None else export_int8(bundle, output, int8)
    _answer(as_json, f"made {path}", export=path)


@app.command()
def verify(
    folder: Annotated[Path, Argument(help="Bundle to read.")],
    everything: Annotated[bool, Option("--all", help="Also list what our own bundle runs.")] = False,
    as_json: _Json = False,
) -> None:
    """Read a bundle without running it. Lists what it would run that ours does not; if anything, exit code 3."""
    from monai_simclr.workflows.verify import verify_bundle

    calls = verify_bundle(folder)
    listed = [call for call in calls if everything or not call.known]
    others = sum(not call.known for call in calls)
    lines = [f"{'known' if call.known else 'OTHER'}  {call.file}  {call.where}  {call.text}" for call in listed]
    lines.append(f"{len(calls)} things would run, {others} of them are not in the bundle of monai-simclr {__version__}")
    _answer(as_json, "\n".join(lines), calls=len(calls), others=others, listed=[vars(call) for call in listed])
    if others:
        raise typer.Exit(DATA)


@app.command()
def phantoms(
    folder: Annotated[Path, Argument(help="New folder for the files.")],
    patients: Annotated[int, Option(help="How many patients to draw.", min=1)] = 300,
    size: Annotated[int, Option(help="Side of the images in pixels.", min=64, max=1024)] = 256,
    dicom: Annotated[bool, Option("--dicom", help="Write DICOM files instead of an NIH folder.")] = False,
    seed: Annotated[int, Option(help="The same seed draws the same patients.")] = 0,
    as_json: _Json = False,
) -> None:
    """Draw chest phantoms: an archive to try things on. Its numbers say nothing about patients."""
    from monai_simclr.data.phantoms import write_dicom_phantoms, write_nih_phantoms

    write = write_dicom_phantoms if dicom else write_nih_phantoms
    path = write(folder, n_patients=patients, size=size, seed=seed)
    _answer(as_json, f"made {path}", folder=path, patients=patients)


@app.command()
def preview(
    dataset_dir: Annotated[Path, Argument(help="Archive: index.csv, NIH folder, DICOM files or images.")],
    output: Annotated[Path, Option("--output", "-o", help="PNG file to write.")] = Path("preview.png"),
    strength: Annotated[str, Option(help="mild, default, moco_cxr, simclr or phantom.")] = "default",
    size: Annotated[int, Option(help="Pixels along each side of a view.", min=32, max=1000)] = 224,
    images: Annotated[int, Option(help="Radiographs to show, drawn at random.", min=1, max=64)] = 8,
    seed: Annotated[int, Option(help="Another seed shows other radiographs.", min=0)] = 0,
    as_json: _Json = False,
) -> None:
    """Draw what training sees on one sheet. Radiographs with the box of the lungs, lung crops and views."""
    from monai_simclr.cli.preview import STRENGTHS, write_preview

    if strength not in STRENGTHS:
        raise typer.BadParameter(f"{strength!r} is not one of {', '.join(STRENGTHS)}", param_hint="--strength")
    sheet = write_preview(dataset_dir, output, strength, size, images, seed)  # type: ignore[arg-type]
    counts = f"{sheet.shown} radiographs, lungs of {sheet.guessed} not found, {sheet.rejected} not readable"
    _answer(as_json, f"made {sheet.path}: {counts}", **sheet._asdict())


@app.command()
def store(
    archive: Annotated[Path, Argument(help="Folder of an archive, or an index.csv.")],
    folder: Annotated[Path, Option("--output", "-o", help="Folder of the store.")],
    size: Annotated[int, Option(help="Side of the stored images in pixels.", min=1)] = 256,
    workers: Annotated[int | None, Option(help="Processes that decode; all cores when left out.", min=0)] = None,
    max_rejected: Annotated[float, Option(help="Share of images that may be damaged.", min=0, max=1)] = 0.05,
    squash: Annotated[bool, Option("--squash", help="Resize without padding to a square.")] = False,
    rebuild: Annotated[bool, Option("--rebuild", help="Replace a store of other settings.")] = False,
    reader: Annotated[list[str] | None, Option(help="A setting of the reader, as voi=percentile.")] = None,
    as_json: _Json = False,
    engine: _Engine = "",
) -> None:
    """Decode every radiograph of an archive once into a store. After a stop, the same command resumes."""
    import logging

    from monai_simclr.cli.store import parse_reader, run_store_command
    from monai_simclr.data.store import StoreOptions

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = StoreOptions(squash, parse_reader(reader or []), rebuild, engine=engine)
    text, facts = run_store_command(archive, folder, size, workers, max_rejected, options)
    _answer(as_json, text, **facts)


@app.command(epilog="Example: monai-simclr study my_bundle --dataset-dir NIH -o study --fractions 1,10,100 --draws 3")
def study(
    bundle: Annotated[Path, Argument(help="Bundle with a pretrained encoder in models/.")],
    dataset_dir: Annotated[Path, Option(help="Archive with labels and splits.")],
    output_dir: Annotated[Path, Option("--output-dir", "-o", help="Folder of the study.")] = Path("study"),
    fractions: Annotated[str, Option(help="Percents of the train patients.")] = "0.1,1,5,10,25,100",
    draws: Annotated[int, Option(help="Draws of labelled patients.", min=1)] = 5,
    arms: Annotated[str, Option(help="Ways of training.")] = "scratch,random_frozen,frozen,finetuned",
    arm: Annotated[list[str] | None, Option(help="NAME=FILE: another encoder to fine-tune.")] = None,
    reference: Annotated[str, Option(help="Arm that the others are compared with.")] = "scratch",
    iterations: Annotated[int, Option(help="Steps of every fine-tuning.", min=1)] = 200,
    override: Annotated[
        list[str] | None, Option("--set", help="KEY=VALUE of train.json, ARM:KEY=VALUE for one arm.")
    ] = None,
    allow_seen_patients: Annotated[bool, Option(help="Also score patients seen in pretraining.")] = False,
    workers: Annotated[int, Option(help="Processes that do runs; 0 without an engine: this one.", min=0)] = 0,
    as_json: _Json = False,
    engine: _Engine = "",
) -> None:
    """Measure how many labels pretraining saves. Fractions x draws x arms; the same command resumes it."""
    from monai_simclr.runtime.cluster import check_engine
    from monai_simclr.study.plan import Study, parse_fractions

    check_engine(engine)
    encoders, training = _pairs(arm), {key: _literal(value) for key, value in _pairs(override).items()}
    names = (*(name.strip() for name in arms.split(",") if name.strip()), *encoders)
    shares = parse_fractions(fractions)
    plan = Study(bundle, dataset_dir, output_dir, shares, draws, names, encoders, iterations, training, reference)
    from monai_simclr.runtime.metrics import read_metrics
    from monai_simclr.study import run_study  # imports torch: slips above are reported at once

    with _aside(as_json):
        path = run_study(plan, engine, workers, allow_seen_patients)
    text = f"made {path}; next: monai-simclr report {output_dir}"
    _answer(as_json, text, metrics=path, **(read_metrics(path)["values"] if as_json else {}))


@app.command()
def select(
    embeddings: Annotated[Path, Argument(help="embeddings.npz that configs/cluster.json wrote.")],
    budget: Annotated[int, Option(help="How many images can be labelled.", min=1)] = 50,
    output: Annotated[Path, Option("--output", "-o", help="Work list to write, CSV.")] = Path("worklist.csv"),
    labelled: Annotated[Path | None, Option(help="CSV with a column image: images that have labels.")] = None,
    seed: Annotated[int, Option(help="The same seed selects the same images.")] = 0,
    as_json: _Json = False,
) -> None:
    """Select the images to label next. Typical ones that cover the archive, one per patient; needs no labels."""
    from monai_simclr.cli.worklists import write_worklist
    from monai_simclr.runtime.tables import read_table

    path = write_worklist(embeddings, budget, output, labelled, seed)
    images = read_table(path)["image"].tolist() if as_json else []
    _answer(as_json, f"made {path}; label these, then train", worklist=path, images=images)


@app.command()
def similar(
    embeddings: Annotated[Path, Argument(help="embeddings.npz that configs/cluster.json wrote.")],
    image: Annotated[str, Argument(help="Path or file name of one of its images.")],
    n: Annotated[int, Option("-n", help="How many studies.", min=1)] = 10,
    as_json: _Json = False,
) -> None:
    """List the studies most similar to an image. At most one per patient, none of the image's own patient."""
    from monai_simclr.cli.worklists import list_similar
    from monai_simclr.runtime.metrics import print_table
    from monai_simclr.runtime.names import shown

    rows = list_similar(embeddings, image, n)
    if as_json:
        _answer(as_json, "", image=image, similar=rows)
    else:
        print_table(rows, title=f"most similar to {shown(Path(image).name)}")


@app.command()
def report(
    runs: Annotated[list[Path], Argument(help="Folders of runs or studies, or a bundle's output folder.")],
    output: Annotated[Path, Option("--output", "-o", help="HTML page to write.")] = Path("report.html"),
    title: Annotated[str, Option(help="Title of the page.")] = "monai-simclr: report",
    notice: Annotated[str, Option(help="Text of a banner at the top.")] = "",
    store: Annotated[Path | None, Option(help="Image store, if it is not in the bundle's cache.")] = None,
    as_json: _Json = False,
) -> None:
    """Write one page: what was run, on which patients, the scores. And what may have been learned instead."""
    from monai_simclr.report import collect_runs, write_report

    page = write_report(output, title=title, notice=notice, data=collect_runs(runs, store))
    _answer(as_json, f"made {page}; it opens without a network; treat it as patient data", report=page)


def _pairs(texts: list[str] | None) -> dict[str, str]:
    """``NAME=VALUE`` options as a mapping."""
    wrong = [text for text in texts or [] if "=" not in text]
    if wrong:
        raise typer.BadParameter(f"write NAME=VALUE, not {wrong[0]!r}")
    return {name.strip(): value for name, _, value in (text.partition("=") for text in texts or [])}


def _literal(text: str) -> object:
    """A number, True, False or None where the text is one, else the text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


_Dataset = Annotated[Path, Argument(help="Folder of an archive, an index.csv, any CSV, or a MedMNIST .npz file.")]
_Options = Annotated[
    list[str] | None,
    Option("--option", "-O", help="NAME=VALUE for the source, such as uncertain=ones; repeatable."),
]


@app.command(epilog="Example: monai-simclr index NIH -o index.csv --split -O views=PA")
def index(
    dataset: _Dataset,
    output: Annotated[Path, Option("--output", "-o", help="CSV file to write.")] = Path("index.csv"),
    option: _Options = None,
    split: Annotated[bool, Option("--split", help="Split patients at random, 70 / 10 / 20 %.")] = False,
    seed: Annotated[int, Option(help="Seed of the split.")] = 0,
    as_json: _Json = False,
) -> None:
    """Write the image index of an archive, one row per image. All other commands accept it."""
    from monai_simclr.data import open_index, split_by_patient, write_index
    from monai_simclr.data.open import options_from_text

    _show_log()
    table = open_index(dataset, **options_from_text(option or []))
    path = write_index(split_by_patient(table, seed=seed) if split else table, output)
    text = f"made {path}: {len(table)} images; next: monai-simclr audit {path} -o audit --pixels"
    facts = {"images": len(table), "patients": table["patient_id"].nunique()}
    _answer(as_json, text, index=path, recognised=table.attrs.get("recognised", ""), **facts)


@app.command()
def audit(
    dataset: _Dataset,
    output: Annotated[Path, Option("--output", "-o", help="Folder for the page and the tables.")] = Path("audit"),
    pixels: Annotated[bool, Option("--pixels", help="Also read the images, not only headers.")] = False,
    pictures: Annotated[bool, Option("--pictures", help="Show small pictures on the page (patient data).")] = False,
    names: Annotated[bool, Option("--names", help="Show names of files on the page (they may name patients).")] = False,
    workers: Annotated[int, Option(help="Processes that read files.", min=0)] = 2,
    option: _Options = None,
    as_json: _Json = False,
    engine: _Engine = "",
) -> None:
    """Check an archive before training. Headers, splits, leaks, duplicates, confounders; exit code 3 on a leak."""
    from monai_simclr.audit import run_audit
    from monai_simclr.data.open import options_from_text

    _show_log()
    options = options_from_text(option or [])
    looks: dict[str, Any] = {
        "pixels": pixels,
        "pictures": pictures,
        "names": names,
        "workers": workers,
        "engine": engine,
    }
    result = run_audit(dataset, output, options=options, **looks)
    files = {"page": result.page, "audit": output / "audit.json", "table": output / "images.csv"}
    flags = {name: flag["count"] for name, flag in result.content["flags"].items() if flag["count"]}
    counts = {name: result.content[name] for name in ("images", "patients")}
    _answer(as_json, f"made {', '.join(map(str, files.values()))}", **files, **counts, leaks=result.leaks, flags=flags)
    if result.leaks:
        print(f"LEAK: {'; '.join(result.leaks)}; see {result.page}, and split by patient", file=sys.stderr)
        raise typer.Exit(DATA)


@app.command()
def listen(
    bundle: Annotated[Path, Option("--bundle", "-b", help="A bundle with a trained classifier.")],
    output: Annotated[Path, Option("--output", "-o", help="Folder of the received studies and of the predictions.")],
    port: Annotated[int, Option(help="TCP port to listen on.", min=1, max=65535)] = 11112,
    aet: Annotated[str, Option(help="Our AE title.")] = "SIMCLR",
    host: Annotated[str, Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    allow: Annotated[list[str] | None, Option(help="AE title that may send; repeat it. All may without it.")] = None,
    quiet: Annotated[float, Option(help="Seconds without a new instance after which a study is predicted.")] = 10.0,
    min_free: Annotated[float, Option(help="GB that stay free; senders are told to wait below it.", min=0)] = 1.0,
    dicom: Annotated[bool, Option("--dicom", help="Write Structured Reports and Secondary Captures.")] = False,
) -> None:
    """Receive radiographs by C-STORE and predict every study. Stops on Ctrl-C or SIGTERM."""
    from monai_simclr.workflows.listener import run_listener

    _show_log()
    options = {"port": port, "ae_title": aet, "host": host, "allowed": allow or [], "quiet_seconds": quiet}
    run_listener(bundle, output, dicom, **options, min_free_bytes=int(min_free * 1e9))


def _show_log() -> None:
    """Log on stderr which source an archive was recognised as, and warnings."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("monai_simclr").setLevel(logging.INFO)


def main() -> None:
    """Run the command; an error ends in a message on one line and the exit code of its kind."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors=register_escapes())
    atexit.register(gc.freeze)  # nothing is searched for garbage at the end: two seconds with MONAI imported
    try:
        with stoppable():
            app()
    except SystemExit as stop:  # typer turns Ctrl-C into a silent exit
        cause = getattr(stop.__context__, "__cause__", None)
        if isinstance(cause, KeyboardInterrupt):
            print(format_error(cause), file=sys.stderr)
        raise
    except (Exception, Stopped) as error:
        if "--debug" in sys.argv:
            raise
        print(format_error(error), file=sys.stderr)
        raise SystemExit(exit_code(error)) from None


if __name__ == "__main__":
    main()
