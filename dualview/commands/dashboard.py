"""`dualview dashboard RUN ...`: a saved workspace and a report of runs on the wandb server.

Both show the runs and their evaluations and nothing else of the project. What can be drawn is what the runs'
metrics.jsonl say was recorded. Needs the extra dualview[dashboard].
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dualview.config.load import load_of_run
from dualview.errors import UserError, listed
from dualview.evaluation.wandb_run import CURVES_CHART, STUDY_IMAGES, WANDB_TABLES, evaluation_id
from dualview.evaluation.wandb_tables import CURVES
from dualview.run import metric_keys
from dualview.run.directory import RunDir
from dualview.run.tracking import default_entity, why_offline
from dualview.views import MASKINGS, TITLES, Availability

# section -> title of a panel -> beginnings of the metrics that it shows
WORKSPACE_SECTIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "Loss": {"training loss": (metric_keys.loss(""),), "validation loss": (metric_keys.split_loss("val"),)},
    "Validation AUROC per availability": {
        "macro AUROC": (metric_keys.macro("val", metric="auroc", group=""),),
        "macro average precision": (metric_keys.macro("val", metric="average_precision", group=""),),
        **{
            f"AUROC per finding, {kind.title}": (
                metric_keys.finding_value("val", metric="auroc", group=kind.key, finding=""),
            )
            for kind in Availability
        },
    },
    "Routing": {
        "rows per branch, of a step": (metric_keys.rows(""),),
        "idle micro-batches, of a step": (metric_keys.idle_micro_batches(""),),
        "labelled studies, of a step": (metric_keys.LABELLED_STUDIES,),
        "images that cannot be used": (metric_keys.BAD_IMAGES,),
    },
    "Speed": {
        "studies and images per second": (metric_keys.STUDIES_PER_SECOND, metric_keys.IMAGES_PER_SECOND),
        "seconds per step": (metric_keys.SECONDS_PER_STEP,),
        "share of the time spent waiting for data": (metric_keys.DATA_WAIT_FRACTION,),
    },
    "Optim": {
        "learning rates": (metric_keys.learning_rate(""),),
        "gradient norms before clipping": (metric_keys.gradient_norm(""),),
        "steps skipped": (metric_keys.BAD_STEPS,),
    },
}
SHOWN_SPLITS, SHOWN_CHECKPOINTS = ("test", "val", "train"), ("best", "last")  # values of the evaluations that are shown


@dataclass(frozen=True, kw_only=True)
class TrackedRun:
    """What a run directory says of the run in wandb."""

    dir: Path
    id: str
    project: str
    name: str
    metrics: frozenset[str]

    @property
    def evaluation_ids(self) -> list[str]:
        """wandb ids of the run's evaluations, whether they exist or not."""
        kinds = [(split, name) for split in SHOWN_SPLITS for name in SHOWN_CHECKPOINTS]
        return [evaluation_id(self.id, split=split, checkpoint_name=name) for split, name in kinds]

    @property
    def offline(self) -> list[Path]:
        """What was recorded offline, of the run and its evaluations."""
        return sorted(
            path for part in ("wandb", "evaluation-*/wandb") for path in self.dir.glob(f"{part}/offline-run-*")
        )


@dataclass(frozen=True, kw_only=True)
class SavedDashboard:
    """Addresses of what was built."""

    workspace: str
    report: str
    unsent: list[Path]  # offline recordings, which may or may not have been sent


def save_dashboard(run_dirs: list[Path]) -> SavedDashboard:
    """Build and save a workspace and a report of runs.

    Raises:
        UserError: not runs of one project, wandb is offline here, its extra is missing, or its server refuses.
    """
    runs = [read_run(RunDir(run_dir)) for run_dir in dict.fromkeys(run_dirs)]
    projects = {run.project: run.dir for run in runs}
    if len(projects) > 1:
        found = listed([f"{project}: {run_dir}" for project, run_dir in projects.items()])
        raise UserError(
            f"the runs are of {len(projects)} wandb projects\n{found}\nA dashboard shows one: give its runs"
        )
    if (why := why_offline()) is not None:
        raise UserError(_what_to_do_offline(why, runs))
    try:
        import wandb_workspaces  # noqa: F401, PLC0415 - an extra
    except ImportError:
        raise UserError(
            "dualview dashboard needs wandb-workspaces, which is not there: pip install 'dualview[dashboard]'"
        ) from None
    try:
        entity = default_entity()
        if entity is None:
            raise UserError("the wandb account has no default entity: set WANDB_ENTITY to the user or team of the runs")
        workspace = build_workspace(runs, entity=entity).save()
        report = build_report(runs, entity=entity).save()
        return SavedDashboard(
            workspace=workspace.url, report=report.url, unsent=[path for run in runs for path in run.offline]
        )
    except UserError:
        raise
    except Exception as error:  # wandb's server and client raise errors of many kinds.
        raise UserError(
            f"wandb could not save the dashboard of project {runs[0].project}: {error}\nIs the project there, with the "
            "runs in it, and may this account write to it? WANDB_ENTITY says whose project it is; recordings are sent "
            f"by: wandb sync {_offline_folders(runs)}"
        ) from None


def read_run(run: RunDir) -> TrackedRun:
    """Raises: UserError where it is no run directory."""
    missing = [file.name for file in (run.id_file, run.config, run.log) if not file.is_file()]
    if missing:
        raise UserError(
            f"{run} is no run directory, it has no {', '.join(missing)}. Give what `dualview train` printed"
        )
    config = load_of_run(run.config)
    return TrackedRun(
        dir=run.path,
        id=run.read_id(),
        project=config.tracking.project,
        name=config.tracking.name or run.name,
        metrics=frozenset(key for record in run.read_log() for key in record if key not in ("step", "summary")),
    )


def _what_to_do_offline(why: str, runs: list[TrackedRun]) -> str:
    steps = ["wandb login" if not why.startswith("WANDB_MODE") else "unset WANDB_MODE, and if need be: wandb login"]
    if any(run.offline for run in runs):
        steps.append(f"wandb sync {_offline_folders(runs)}")
    steps.append(f"dualview dashboard {' '.join(str(run.dir) for run in runs)}")
    return (
        f"wandb is offline here ({why}), and workspaces and reports are on its server only. Where there is a network\n"
        f"{listed(steps)}\nOffline, `wandb leet RUN/wandb/latest-run` shows a run in the terminal"
    )


def _offline_folders(runs: list[TrackedRun]) -> str:
    return " ".join(str(path) for run in runs for path in run.offline) or "RUN/wandb/offline-run-*"


# -- what they show --------------------------------------------------------------------------------


def build_workspace(runs: list[TrackedRun], *, entity: str) -> Any:
    """A `wandb_workspaces.workspaces.Workspace`, not saved yet."""
    from wandb_workspaces import workspaces as ws  # noqa: PLC0415 - an extra

    sections = [
        ws.Section(name=name, panels=panels, is_open=True)
        for name, panels in (*_training_panels(runs).items(), ("Evaluation", _evaluation_panels()))
    ]
    return ws.Workspace(
        entity=entity,
        project=runs[0].project,
        name=f"dualview: {_names(runs)}",
        sections=sections,
        settings=ws.WorkspaceSettings(x_axis="global_step", max_runs=20),
        runset_settings=ws.RunsetSettings(
            filters=_only([wandb_id for run in runs for wandb_id in (run.id, *run.evaluation_ids)]),
            groupby=[ws.Metric("Group")],
        ),
    )


def build_report(runs: list[TrackedRun], *, entity: str) -> Any:
    """A `wandb_workspaces.reports.v2.Report`, not saved yet."""
    from wandb_workspaces.reports import v2 as wr  # noqa: PLC0415 - an extra

    def grid(panels: list[Any], *, name: str, ids: list[str]) -> Any:
        runset = wr.Runset(entity=entity, project=runs[0].project, name=name, filters=_only(ids), groupby=["group"])
        return wr.PanelGrid(runsets=[runset], panels=panels)

    training = _training_panels(runs)
    return wr.Report(
        entity=entity,
        project=runs[0].project,
        title=f"dualview: {_names(runs)}"[:128],  # wandb takes 128 characters
        description="Chest X-ray classifiers on PA and lateral views of which one may be missing",
        width="fluid",
        blocks=[
            wr.TableOfContents(),
            wr.H1("What is shown"),
            wr.P(
                f"{len(runs)} run(s) of training and their evaluations: {', '.join(run.name for run in runs)}. Runs of "
                "a group are drawn as one line, their mean."
            ),
            wr.UnorderedList(
                [
                    "Complete studies are scored with both views, with the lateral and with the PA withheld: the same "
                    "patients, so the differences are what a view is worth.",
                    "Studies that came with one view are other patients; beside them stands what is predicted by "
                    "which views exist, and nothing else.",
                    "A finding is helped or hurt by the lateral view where the interval that holds for all findings "
                    "together leaves 0 out.",
                ]
            ),
            wr.H1("Evaluation"),
            grid(
                _evaluation_panels(),
                name="evaluations",
                ids=[wandb_id for run in runs for wandb_id in run.evaluation_ids],
            ),
            wr.H1("Training"),
            grid(
                [panel for panels in training.values() for panel in panels],
                name="training",
                ids=[run.id for run in runs],
            ),
        ],
    )


def _training_panels(runs: list[TrackedRun]) -> dict[str, list[Any]]:
    """Section -> a panel for each title of which something was recorded."""
    from wandb_workspaces.reports import v2 as wr  # noqa: PLC0415 - an extra

    recorded = sorted({key for run in runs for key in run.metrics})
    sections: dict[str, list[Any]] = {}
    for section, titles in WORKSPACE_SECTIONS.items():
        shown = {title: [key for key in recorded if key.startswith(begins)] for title, begins in titles.items()}
        sections[section] = [
            wr.LinePlot(title=title, x="global_step", y=[*metrics]) for title, metrics in shown.items() if metrics
        ]
    return {section: panels for section, panels in sections.items() if panels}


def _evaluation_panels() -> list[Any]:
    from wandb_workspaces.reports import v2 as wr  # noqa: PLC0415 - an extra

    wide = wr.Layout(w=24, h=9)
    half = wr.Layout(w=8, h=8)
    panels: list[Any] = [wr.WeavePanelSummaryTable(table_name=table, layout=wide) for table in WANDB_TABLES]
    panels.append(
        wr.BarPlot(
            title="macro AUROC of complete studies",
            metrics=[f"evaluation/auroc_macro_{name}" for name in MASKINGS],
            layout=half,
        )
    )
    for key, (what, axes) in CURVES.items():
        panels += [
            wr.CustomChart(
                query={"summaryTable": {"tableKey": f"evaluation/{key}_{name}_table"}},
                chart_name=CURVES_CHART,
                chart_fields={"x": "x", "y": "y", "class": "class"},
                chart_strings={"title": f"{what}, {TITLES[name]}", "x-axis-title": axes[0], "y-axis-title": axes[1]},
                layout=half,
            )
            for name in MASKINGS
        ]
    panels.append(
        wr.MediaBrowser(title="studies, where tracking.num_images is set", media_keys=[STUDY_IMAGES], layout=wide)
    )
    return panels


def _only(ids: list[str]) -> str:
    """A filter: the runs of these ids."""
    return f"Metric('ID') in {ids!r}"


def _names(runs: list[TrackedRun]) -> str:
    return runs[0].name if len(runs) == 1 else f"{runs[0].name} and {len(runs) - 1} more"
