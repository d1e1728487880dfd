"""The command line: parse, call, exit code.

0 is success, 1 an error that the message explains, 2 wrong usage, 75 a run that was stopped by SIGTERM or
SIGUSR1 and wants to be started again.
"""

import json
import logging
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich import get_console
from rich.logging import RichHandler
from rich.progress import track
from rich.table import Table

from dualview.bench import data as data_bench
from dualview.bench import exactness as exactness_bench
from dualview.bench import routing as routing_bench
from dualview.bench import schedule as schedule_bench
from dualview.commands.assess import assess_file
from dualview.commands.compare import compare as run_comparison
from dualview.commands.dashboard import save_dashboard
from dualview.commands.data import ViewCheckRequest, look_at_data
from dualview.commands.evaluate import evaluate_run as run_evaluation
from dualview.commands.evaluate_ensemble import evaluate_ensemble as run_ensemble
from dualview.commands.export import export as run_export
from dualview.commands.external import Request, evaluate_on
from dualview.commands.external_tables import drift_table, external_lines, recalibration_table, thresholds_table
from dualview.commands.predict import predict as run_prediction
from dualview.commands.prepare import prepare as run_prepare
from dualview.commands.report import write_report
from dualview.commands.tables import (
    account_tables,
    assessment_table,
    auroc_table,
    calibration_table,
    comparison_tables,
    export_table,
    images_table,
    operating_points_line,
    value_of_lateral_table,
    view_check_sentence,
    view_check_table,
)
from dualview.commands.train import train as run_training
from dualview.comparison.plan import read_plan
from dualview.comparison.runs import slurm_array
from dualview.comparison.tables import choice_line, folds_line, table_file
from dualview.config import DistributedConfig, RunConfig, load
from dualview.data.counts import count_images
from dualview.data.load import load_data
from dualview.distributed import is_alone_by_environment, is_main_by_environment, launcher_error_file, start
from dualview.errors import EXAMPLES, AnotherRankFailed, Preempted, UserError, told_by_reason
from dualview.evaluation.looks import EvaluationSettings
from dualview.evaluation.statistics.thresholds import ThresholdRule
from dualview.inference.predictor import BATCH_SIZE
from dualview.progress import progress_bars
from dualview.report.pictures import ImageRequest

EXIT_PREEMPTED = 75  # EX_TEMPFAIL of sysexits.h, which asks a job script to try again

app = typer.Typer(
    name="dualview",
    help="Train chest X-ray classifiers on PA and lateral views when many studies have only one of them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
bench = typer.Typer(help="Measurements to rerun on your machine.", no_args_is_help=True)
app.add_typer(bench, name="bench")

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else")]
ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file, such as configs/quickstart.yaml")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[section.field=value ...]", help="Values that replace those of the file")
]


def main() -> None:
    """Entry point of `dualview` and `python -m dualview`."""
    logging.basicConfig(
        level=logging.INFO if is_main_by_environment() else logging.WARNING,
        format="%(message)s",
        handlers=[RichHandler(show_path=False, log_time_format="[%X]")],
    )
    for chatty in ("accelerate", "torch", "PIL", "urllib3", "onnxscript", "onnx_ir", "matplotlib"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)  # pydicom logs a traceback for every decoder it tries
    app()


@contextmanager
def _errors_as_messages() -> Iterator[None]:
    """One clear message and an exit code; of several processes one prints it, which distributed.py chooses."""
    try:
        yield
    except Preempted as stopped:
        message = f"{stopped}; start the same command again to continue"
        if is_main_by_environment():
            typer.secho(message, err=True, fg=typer.colors.YELLOW)
        _leave_last_words(message)
        raise typer.Exit(EXIT_PREEMPTED) from None
    except AnotherRankFailed:
        time.sleep(10)  # The launcher ends this process once it has heard of the rank that failed.
        raise typer.Exit(1) from None
    except UserError as error:
        if error.rank is None and not is_main_by_environment():
            # Every process found the same error: the launcher ends this one once the main process has printed it.
            time.sleep(3)
        message = f"rank {error.rank}: {error}" if error.rank else str(error)
        if len(error.details) > EXAMPLES:
            message += f"\nEvery one of them: {_written(error.details)}"
        _print_error(message)
        raise typer.Exit(1) from None
    except OSError as error:
        if error.errno is None and error.__cause__ is None:
            raise
        _print_error(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        raise typer.Exit(1) from None
    except Exception:
        _leave_last_words(traceback.format_exc())
        raise


def _written(lines: Sequence[str]) -> Path:
    """A new file in the folder for temporary files, for the user alone, as the lines can name patients."""
    with tempfile.NamedTemporaryFile(
        "w", prefix="dualview-problems-", suffix=".txt", delete=False, encoding="utf-8", errors="backslashreplace"
    ) as file:
        file.writelines(f"{line}\n" for line in lines)
    return Path(file.name)


def _print_error(message: str) -> None:
    typer.secho(f"error: {message}", err=True, fg=typer.colors.RED)
    _leave_last_words(f"error: {message}")


def _leave_last_words(message: str) -> None:
    """Write the message where the launcher looks for what to print last; nothing to do without a launcher."""
    if (file := launcher_error_file()) is not None:
        # The launcher prints the earliest error by whole seconds: this one is dated before those it causes.
        last_words = {"message": message, "timestamp": int(time.time()) - 1}
        Path(file).write_text(json.dumps(last_words), encoding="utf-8")


@app.command()
def train(config: ConfigPath, overrides: Overrides = None) -> None:
    """Train, evaluate the best checkpoint on val and test, and write it all to run.dir."""
    with _errors_as_messages():
        result = run_training(load(config, overrides=overrides))
        if not result.is_main:
            return
        console = get_console()
        split = "test" if "test" in result.metrics else "val"
        console.print(auroc_table(result.metrics[split], split=split))
        console.print(f"run directory    {result.run_dir}", soft_wrap=True, highlight=False)
        console.print(f"best checkpoint  {result.run_dir}/checkpoints/best (step {result.best_step})", soft_wrap=True)
        if result.wandb_dir is not None:
            console.print(f"wandb, {result.wandb_mode}   {result.wandb_dir}", soft_wrap=True, highlight=False)


@app.command("config")
def show_config(config: ConfigPath, overrides: Overrides = None) -> None:
    """Print the resolved configuration: defaults, file and overrides together."""
    with _errors_as_messages():
        typer.echo(load(config, overrides=overrides).to_yaml(), nl=False)


@app.command("data")
def show_data(  # noqa: PLR0917 - the options of a command
    config: ConfigPath,
    overrides: Overrides = None,
    as_json: AsJson = False,
    dropped: Annotated[
        Path | None, typer.Option(help="Write every image that is left out, and why, to this CSV")
    ] = None,
    contact_sheet: Annotated[
        Path | None, typer.Option(help="Draw random studies into this PNG; with --check-views, what that finds")
    ] = None,
    num_studies: Annotated[int, typer.Option(min=1, help="Random studies on the contact sheet")] = 12,
    check_views: Annotated[
        bool, typer.Option("--check-views", help="Look at pixels for images that are not of the view in the table")
    ] = False,
    suspects: Annotated[Path | None, typer.Option(help="With --check-views: write what it finds to this CSV")] = None,
    check_limit: Annotated[
        int, typer.Option(min=20, help="With --check-views: images to look at, drawn at random where there are more")
    ] = 20_000,
) -> None:
    """Count what a configuration reads: images, studies, patients, labels; and look at some images. No training."""
    with _errors_as_messages():
        if suspects is not None and not check_views:
            raise UserError("--suspects says where to write what --check-views finds; add --check-views")
        loaded = load(config, overrides=overrides)
        views = None
        if check_views:
            console = None if as_json else get_console()
            views = ViewCheckRequest(limit=check_limit, suspects=suspects, console=console)
        try:
            counts = look_at_data(
                loaded, dropped=dropped, contact_sheet=contact_sheet, num_studies=num_studies, views=views
            )
        except UserError as error:
            if error.account and not as_json:
                get_console().print(images_table([count_images(source) for source in error.account]))
            raise
        for text in counts["too_dark"]:
            typer.secho(f"warning: {text}", err=True, fg=typer.colors.YELLOW)
        if as_json:
            typer.echo(json.dumps(counts))
        else:
            for table in account_tables(counts):
                get_console().print(table)
            if check_views:
                _show_view_check(counts["check_views"])


def _show_view_check(check: dict[str, Any]) -> None:
    """What `dualview data --check-views` found, after the counts."""
    console = get_console()
    if check["suspects"]:
        console.print(view_check_table(check))
    console.print(view_check_sentence(check), highlight=False)
    for warning in check["warnings"]:
        console.print(f"careful: {warning}", style="yellow", highlight=False, markup=False)
    if check["bad"]:
        bad = told_by_reason((image["path"], image["reason"]) for image in check["bad"])
        console.print(f"{len(check['bad'])} image(s) could not be read\n{bad}", highlight=False, markup=False)
    if check["contact_sheet"]:
        console.print(
            f"contact sheet, worst first  {check['contact_sheet']}", soft_wrap=True, highlight=False, markup=False
        )


@app.command()
def prepare(config: ConfigPath, overrides: Overrides = None) -> None:
    """Decode and resize every image once, into data.store. Goes on where it was interrupted."""
    with _errors_as_messages():
        loaded = load(config, overrides=overrides)
        result = run_prepare(loaded, console=get_console())
        what = "is up to date" if result.was_there else f"made in {result.seconds:.0f} s"
        console = get_console()
        console.print(f"{result.folder} {what}: {result.num_images:,} images, {result.num_bytes / 2**30:.2f} GiB")
        for remark in result.remarks:
            console.print(str(remark), highlight=False, markup=False, soft_wrap=True)
        if result.bad:
            told = f"{len(result.bad)} image(s) cannot be used\n{told_by_reason(result.bad.items())}"
            console.print(told, highlight=False, markup=False)
            console.print(f"All of them are in {result.folder}/index.parquet, column reason", highlight=False)


RunDir = Annotated[Path, typer.Argument(metavar="RUN", help="Run directory that `dualview train` wrote")]
RunsAndOverrides = Annotated[
    list[str],
    typer.Argument(
        metavar="RUN ... [section.field=value ...]",
        help="Run directory that `dualview train` wrote, or several whose logits are averaged; then values that "
        "replace those of the run, such as data.several_images_at_test=mean",
    ),
]
CheckpointName = Annotated[str, typer.Option(help="best, last, or the number of a step")]
Resamples = Annotated[int, typer.Option(min=100, help="Resamples of the patients")]
ResamplesSeed = Annotated[int, typer.Option(min=0, help="Of the resamples")]


def _runs_and_overrides(words: Sequence[str]) -> tuple[list[Path], list[str]]:
    """The run directories among the words, and the values that replace those of the runs.

    Raises:
        UserError: no run directory.
    """
    overrides = [word for word in words if "=" in word and not Path(word).exists()]
    run_dirs = [Path(word) for word in words if word not in overrides]
    if not run_dirs:
        raise UserError("give at least one run directory")
    return run_dirs, overrides


@app.command()
def predict(  # noqa: PLR0917 - the options of a command
    runs: RunsAndOverrides,
    out: Annotated[Path, typer.Option(help="CSV to write; an interrupted one is continued")],
    csv: Annotated[
        Path | None,
        typer.Option(help="Studies: columns study, pa, lateral, or one row per image as for training"),
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="DICOM files, or images called STUDY_pa and STUDY_lateral")
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="Folder that the CSV's paths are relative to; by default its own")
    ] = None,
    checkpoint: CheckpointName = "best",
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="auto takes a GPU if there is one")] = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Studies per forward pass")] = BATCH_SIZE,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes that read images, per rank; by default as in training")
    ] = None,
    intensity_max: Annotated[
        float | None, typer.Option(help="Stored value that is white, as data.intensity_max [default: of the run]")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace another CSV at --out")] = False,
) -> None:
    """Probabilities and decisions for studies with either view or both. Goes on where it was interrupted."""
    with _errors_as_messages():
        run_dirs, overrides = _runs_and_overrides(runs)
        result = run_prediction(
            run_dirs,
            overrides=overrides,
            csv=csv,
            folder=folder,
            root=root,
            out=out,
            checkpoint=checkpoint,
            device=device,
            batch_size=batch_size,
            num_workers=workers,
            intensity_max=intensity_max,
            overwrite=overwrite,
        )
        if result.counts is not None:
            for remark in result.remarks:
                get_console().print(str(remark), soft_wrap=True, highlight=False, markup=False)
            studies, predicted = result.counts.studies, result.counts.predicted
            there = " was there already" if result.was_there else ""
            without = f", {studies - predicted:,} without a prediction (column reason)" if predicted < studies else ""
            get_console().print(f"{result.out}{there}: {studies:,} studies{without}", soft_wrap=True, highlight=False)


@app.command()
def export(
    run: RunDir,
    format: Annotated[Literal["onnx", "torch-export"], typer.Option(help="onnx needs pip install 'dualview[export]'")],
    out: Annotated[Path | None, typer.Option(help="Folder to write [default: RUN/export-FORMAT]")] = None,
    checkpoint: CheckpointName = "best",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a folder that is there")] = False,
) -> None:
    """Static graphs for studies with both views, PA only and lateral only, each compared with the network."""
    with _errors_as_messages(), progress_bars(shown=True, transient=True) as progress:
        folder, graphs = run_export(
            run, format=format, out=out, checkpoint=checkpoint, overwrite=overwrite,
            track=lambda routes: progress.track(routes, description="exporting"),
        )  # fmt: skip
        get_console().print(export_table(graphs))
        get_console().print(f"{folder}/metadata.json says what goes in and what comes out", soft_wrap=True)


@app.command()
def evaluate(  # noqa: PLR0917 - the options of a command
    runs: RunsAndOverrides,
    split: Annotated[str | None, typer.Option(help="train, val or test [default: test; with --on all studies]")] = None,
    on: Annotated[
        Path | None,
        typer.Option("--on", metavar="CONFIG", help="Other data: a YAML file of which the section data counts"),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="With --on: what the data are called, RUN/external-NAME [default: as CONFIG]")
    ] = None,
    map_: Annotated[
        list[str] | None,
        typer.Option("--map", help="With --on: 'Run finding=their finding'; may be given several times"),
    ] = None,
    recalibrate_on: Annotated[
        int | None, typer.Option(help="With --on: number of patients to set aside, and recalibrate on")
    ] = None,
    checkpoint: CheckpointName = "best",
    out: Annotated[
        Path | None, typer.Option(help="Folder to write to [default: RUN/evaluation-SPLIT or RUN/external-NAME]")
    ] = None,
    by: Annotated[
        list[str] | None,
        typer.Option(help="Column of the study table to divide by, or two as sex+age; may be given several times"),
    ] = None,
    threshold: Annotated[
        str | None,
        typer.Option(help="youden, sensitivity=0.9 or specificity=0.9, chosen on val [default: those of the run]"),
    ] = None,
    calibrate: Annotated[
        bool, typer.Option(help="Fit probabilities on val: by Platt, by a temperature where labels are few")
    ] = False,
    set_thresholds: Annotated[
        bool,
        typer.Option("--set-thresholds", help="Make thresholds and calibration those of the run, for predict"),
    ] = False,
    resamples: Resamples = 2000,
    seed: ResamplesSeed = 0,
) -> None:
    """Score every study of a split, complete ones also with a view withheld: what is the lateral view worth?"""
    with _errors_as_messages():
        if split not in ("train", "val", "test", None):
            raise UserError(f"--split {split}: choose train, val or test")
        if on is None and (name is not None or map_ or recalibrate_on is not None):
            raise UserError("--name, --map and --recalibrate-on are for other data; say which, --on CONFIG")
        run_dirs, overrides = _runs_and_overrides(runs)
        run = run_dirs[0]
        if on is not None:
            if len(run_dirs) > 1:
                raise UserError(f"--on is for one run, and there are {len(run_dirs)}; evaluate each of them --on {on}")
            if threshold is not None or calibrate or set_thresholds:
                raise UserError(
                    "--on takes the thresholds and the calibration of the run as they are: leave out --threshold, "
                    "--calibrate and --set-thresholds. --recalibrate-on N shows what N patients set aside would change"
                )
            _evaluate_on(
                run, Request(config=on, name=name, maps=map_ or (), split=split, recalibrate_on=recalibrate_on),
                checkpoint=checkpoint, overrides=overrides, out=out, by=by or None,
                settings=EvaluationSettings(num_resamples=resamples, seed=seed),
            )  # fmt: skip
            return
        with progress_bars(shown=is_main_by_environment()) as progress:
            evaluate_these = partial(run_evaluation, run) if len(run_dirs) == 1 else partial(run_ensemble, run_dirs)
            result = evaluate_these(
                split=split or "test",
                checkpoint_name=checkpoint,
                overrides=overrides,
                out=out,
                by=by or None,
                rule=None if threshold is None else ThresholdRule.parse(threshold),
                calibrate=calibrate,
                set_thresholds=set_thresholds,
                settings=EvaluationSettings(num_resamples=resamples, seed=seed),
                progress=progress,
            )
        if result.evaluation is None:
            return
        console = get_console()
        if (table := value_of_lateral_table(result.evaluation, width=console.width)) is not None:
            console.print(table)
        if calibrate:
            console.print(calibration_table(result.evaluation))
        console.print(f"evaluation  {result.folder}/evaluation.json, predictions.parquet", soft_wrap=True)
        console.print(operating_points_line(result.evaluation, folder=result.folder, run=result.home), soft_wrap=True)
        if result.wandb is not None and result.wandb.dir is not None:
            console.print(f"wandb, {result.wandb.mode}  {result.wandb.dir}", soft_wrap=True, highlight=False)


def _evaluate_on(
    run: Path,
    request: Request,
    *,
    checkpoint: str,
    overrides: list[str] | None,
    out: Path | None,
    by: list[str] | None,
    settings: EvaluationSettings,
) -> None:
    """`dualview evaluate --on`: evaluate and print."""
    with progress_bars(shown=is_main_by_environment()) as progress:
        result = evaluate_on(
            run, request, checkpoint_name=checkpoint, overrides=overrides, out=out, by=by, settings=settings,
            progress=progress,
        )  # fmt: skip
    if result.evaluation is None:
        return
    console = get_console()
    for table in (drift_table, thresholds_table, recalibration_table):
        if (made := table(result.evaluation)) is not None:
            console.print(made)
    for line in external_lines(result.evaluation, folder=result.folder, run=run):
        console.print(line, soft_wrap=True, markup=False, highlight=False)
    if result.wandb is not None and result.wandb.dir is not None:
        console.print(f"wandb, {result.wandb.mode}  {result.wandb.dir}", soft_wrap=True, highlight=False)


@app.command()
def assess(  # noqa: PLR0917 - the options of a command
    predictions: Annotated[
        Path,
        typer.Argument(
            metavar="PREDICTIONS",
            help="CSV or parquet: study, patient, availability, label:F, logit:F or probability:F",
        ),
    ],
    val: Annotated[
        Path | None, typer.Option(help="Predictions of val, in the same columns; without it there are no thresholds")
    ] = None,
    train_prevalence: Annotated[
        Path | None, typer.Option(help="CSV or parquet with columns availability, prevalence:F: shares in training")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write to [default: NAME-assessment beside PREDICTIONS]")
    ] = None,
    threshold: Annotated[
        str | None, typer.Option(help="youden, sensitivity=0.9 or specificity=0.9, chosen on --val [default: youden]")
    ] = None,
    by: Annotated[
        list[str] | None,
        typer.Option(help="Column of PREDICTIONS to divide by, or two as sex+age; may be given several times"),
    ] = None,
    resamples: Resamples = 2000,
    seed: ResamplesSeed = 0,
) -> None:
    """The statistics and the report of evaluate, for predictions of any software. Columns: docs/evaluation.md."""
    with _errors_as_messages():
        with progress_bars(shown=True) as progress:
            result = assess_file(
                predictions,
                val=val,
                train_prevalence=train_prevalence,
                out=out,
                rule=None if threshold is None else ThresholdRule.parse(threshold),
                by=by or None,
                settings=EvaluationSettings(num_resamples=resamples, seed=seed),
                progress=progress,
            )
        console = get_console()
        value = value_of_lateral_table(result.evaluation, width=console.width)
        console.print(value or assessment_table(result.evaluation))
        console.print(f"thresholds  {result.evaluation.settings.operating_points}", soft_wrap=True, highlight=False)
        console.print(f"evaluation  {result.folder}/evaluation.json", soft_wrap=True, highlight=False)
        console.print(f"report      {result.report}", soft_wrap=True, highlight=False)


@app.command()
def dashboard(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN ...", help="Run directories of one wandb project, such as runs/*")
    ],
) -> None:
    """Build a workspace and a report of the runs on the wandb server. Needs the extra dashboard and an account."""
    with _errors_as_messages():
        saved = save_dashboard(runs)
        console = get_console()
        console.print(f"workspace  {saved.workspace}", soft_wrap=True, highlight=False)
        console.print(f"report     {saved.report}", soft_wrap=True, highlight=False)
        if saved.unsent:
            folders = " ".join(map(str, saved.unsent))
            console.print(f"recorded offline; unless sent already: wandb sync {folders}", soft_wrap=True)


@app.command()
def compare(  # noqa: PLR0917 - the options of a command
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file, such as configs/compare.yaml")],
    overrides: Overrides = None,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time, on this machine")] = 1,
    launch: Annotated[
        Path | None, typer.Option(help="Accelerate file to start each run with, such as launch/gpu4.yaml")
    ] = None,
    only: Annotated[int | None, typer.Option(min=0, help="Train this run and no other (Slurm arrays)")] = None,
    slurm: Annotated[bool, typer.Option("--slurm", help="Print a Slurm array script and train nothing")] = False,
) -> None:
    """Train models x seeds, evaluate all on the same test patients, and write one table. Goes on where it stopped."""
    with _errors_as_messages():
        if not is_alone_by_environment():
            raise UserError("start dualview compare itself without a launcher; --launch FILE starts each of its runs")
        plan = read_plan(config, overrides=overrides)
        if slurm:
            typer.echo(slurm_array(plan, command=" ".join(["dualview compare", str(config), *(overrides or [])])))
            return
        with progress_bars(shown=True) as progress:
            comparison = run_comparison(plan, jobs=jobs, launch=launch, only=only, progress=progress)
        if comparison is None:
            return
        for setting, table in zip(plan.compare.settings, comparison_tables(comparison), strict=True):
            get_console().print(table)
            if (of_folds := folds_line(comparison, setting=setting)) is not None:
                get_console().print(of_folds, soft_wrap=True, markup=False, highlight=False)
            get_console().print(choice_line(comparison, setting=setting), soft_wrap=True, markup=False)
        get_console().print(
            f"all numbers  {table_file(plan, '.csv')}, and as Markdown {table_file(plan, '.md')}", soft_wrap=True
        )


@app.command()
def report(  # noqa: PLR0917 - the options of a command
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN ... [section.field=value ...]",
            help="Evaluated run directories; and with --images where the data are now, such as data.root=/data",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="File to write [default: RUN/report.html; of several runs in the folder that holds them all]"
        ),
    ] = None,
    evaluation: Annotated[str, typer.Option(help="Folder in RUN to show, such as external-NAME")] = "evaluation-test",
    images: Annotated[bool, typer.Option("--images", help="Show studies with Grad-CAM; identifiers stay out")] = False,
    study: Annotated[
        list[str] | None, typer.Option(help="With --images: this study, by its identifier; may be given several times")
    ] = None,
    finding: Annotated[
        str | None, typer.Option(help="With --images: which one [default: that which gains most with the lateral]")
    ] = None,
    num_images: Annotated[
        int, typer.Option(min=1, help="With --images: most confident right answers to show, and as many wrong ones")
    ] = 4,
    seeds: Annotated[
        bool, typer.Option("--seeds", help="Refuse runs that differ in more than run.seed, or tested other studies")
    ] = False,
) -> None:
    """Write evaluated runs into one HTML file that opens offline; of several seeds, with gains over both."""
    with _errors_as_messages():
        run_dirs, overrides = _runs_and_overrides(runs)
        if not images and (study or finding or overrides):
            raise UserError("--study, --finding and section.field=value say which images to show; add --images")
        request = ImageRequest(studies=study or (), finding=finding, num_images=num_images, overrides=overrides)
        page = request if images else None
        file = write_report(run_dirs, out=out, images=page, evaluation=evaluation, are_seeds=seeds)
        get_console().print(f"report  {file} ({file.stat().st_size / 2**20:.1f} MiB)", soft_wrap=True, highlight=False)


def _show(values: dict[str, object], *, as_json: bool, table: Table) -> None:
    """A measurement, for a program or for a person."""
    if as_json:
        typer.echo(json.dumps(values))
    else:
        get_console().print(table)


@bench.command("routing")
def bench_routing(
    as_json: AsJson = False,
    rounds: Annotated[int, typer.Option(min=1, help="Timed rounds over all variants")] = 5,
    image_size_px: Annotated[int, typer.Option(min=64, help="Height and width of the images")] = 224,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
) -> None:
    """Time a routed training step against zero images, a loop over studies, and a plain DenseNet121."""
    with _errors_as_messages():
        result = routing_bench.measure(
            rounds=rounds,
            image_size_px=image_size_px,
            device=device,
            track=lambda steps: track(steps, description="timing", disable=as_json, transient=True),
        )
        _show(result.to_dict(), as_json=as_json, table=routing_bench.as_table(result))


@bench.command("schedule")
def bench_schedule(  # noqa: PLR0917 - the options of a command
    config: Annotated[
        list[str] | None,
        typer.Argument(metavar="[CONFIG [section.field=value ...]]", help="Dataset to plan; without it --mix is"),
    ] = None,
    mix: Annotated[str, typer.Option(help="Shares of both/PA only/lateral only")] = "50/49/1",
    ranks: Annotated[
        list[int] | None, typer.Option(min=1, help="World sizes, such as --ranks 1 8 1024; all powers of 2 to 4,096")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Optimizer steps to plan for a mix")] = 200,
    micro_batch_size: Annotated[int, typer.Option(min=1, help="Studies per rank and step")] = 8,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """Idle branches and waiting ranks under both orders, from 1 to 4,096 ranks. Plans only, trains nothing."""
    with _errors_as_messages():
        words = config or []
        # Of `--ranks 1 8 1024` typer takes the 1; the other numbers stand among the words of the configuration.
        more_ranks = [int(word) for word in words if word.isdigit() and ranks]
        if 0 in more_ranks:
            raise UserError("--ranks has 0; each number of ranks is at least 1")
        words = [word for word in words if not (word.isdigit() and ranks)]
        availability, of = None, f"studies mixed {mix} (both/PA only/lateral only)"
        if words:
            loaded = load(Path(words[0]), overrides=words[1:])
            availability = load_data(loaded.data, seed=loaded.data_seed).train.availability
            of = f"the {len(availability):,} training studies of {words[0]}"
        rows = schedule_bench.measure(
            availability=availability,
            mix=schedule_bench.parse_mix(mix),
            ranks=[*(ranks or schedule_bench.RANKS), *more_ranks],
            micro_batch_size=micro_batch_size,
            steps=steps,
            seed=seed,
            track=lambda sizes: track(sizes, description="planning", disable=as_json, transient=True),
        )
        _show(schedule_bench.as_json(rows, of=of), as_json=as_json, table=schedule_bench.as_table(rows, of=of))


@bench.command("data")
def bench_data(
    as_json: AsJson = False,
    rounds: Annotated[int, typer.Option(min=1, help="Timed rounds over all ways")] = 5,
    image_size_px: Annotated[int, typer.Option(min=64, help="Height and width that the network gets")] = 224,
    file_size_px: Annotated[int, typer.Option(min=64, help="Height and width of the files")] = 1024,
    device: Annotated[str, typer.Option(help="cpu or cuda, for augmentation and training")] = "cpu",
) -> None:
    """Time images from the store, decoded on the fly and through torchxrayvision, and waiting in training."""
    with _errors_as_messages():
        result = data_bench.measure(
            rounds=rounds,
            image_size_px=image_size_px,
            file_size_px=file_size_px,
            device=device,
            track=lambda steps: track(steps, description="timing", disable=as_json, transient=True),
        )
        _show(result.to_dict(), as_json=as_json, table=data_bench.as_table(result))


@bench.command("exactness")
def bench_exactness(
    as_json: AsJson = False,
    rounds: Annotated[int, typer.Option(min=1, help="Timed rounds over both variants")] = 10,
    image_size_px: Annotated[int, typer.Option(min=64, help="Height and width of the images")] = 224,
) -> None:
    """Time a step with the global count and pooled statistics against one without. Launch with several processes."""
    with _errors_as_messages(), start(RunConfig(), distributed=DistributedConfig()) as job:
        result = exactness_bench.measure(
            job=job,
            image_size_px=image_size_px,
            rounds=rounds,
            track=lambda steps: track(steps, "timing", disable=as_json or not job.is_main, transient=True),
        )
        if job.is_main:
            _show(result.to_dict(), as_json=as_json, table=exactness_bench.as_table(result))
