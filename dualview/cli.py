"""The command line: parse, call, exit code. 0 is success, 1 an error that the message explains, 2 wrong usage."""

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich import get_console
from rich.logging import RichHandler
from rich.progress import track

from dualview.bench import routing as routing_bench
from dualview.config import load
from dualview.console import auroc_table
from dualview.distributed import is_main_by_environment
from dualview.errors import UserError
from dualview.train import train as run_training

app = typer.Typer(
    name="dualview",
    help="Train chest X-ray classifiers on PA and lateral views when many studies have only one of them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
bench = typer.Typer(help="Measurements to rerun on your machine.", no_args_is_help=True)
app.add_typer(bench, name="bench")

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
    for chatty in ("accelerate", "torch", "PIL", "urllib3"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    app()


@contextmanager
def _errors_as_messages() -> Iterator[None]:
    """One clear message and exit code 1; with several processes, from the main one."""
    try:
        yield
    except UserError as error:
        if is_main_by_environment():
            _print_error(str(error))
        else:
            time.sleep(1)  # the launcher ends all processes once one has ended: let the main one speak first
        raise typer.Exit(1) from None
    except OSError as error:
        if error.errno is None and error.__cause__ is None:
            raise
        _print_error(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        raise typer.Exit(1) from None


def _print_error(message: str) -> None:
    typer.secho(f"error: {message}", err=True, fg=typer.colors.RED)


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


@bench.command("routing")
def bench_routing(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else")] = False,
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
        if as_json:
            typer.echo(json.dumps(result.to_dict()))
        else:
            get_console().print(routing_bench.as_table(result))
