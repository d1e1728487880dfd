"""What a trained network says of the studies of a table, complete ones also with a view withheld."""

from collections.abc import Mapping

from rich.progress import Progress

from dualview.config import Config
from dualview.data.dataset import StudyDataset
from dualview.distributed import Job
from dualview.evaluation.evaluator import Evaluator
from dualview.evaluation.prediction_table import PredictionTable
from dualview.evaluation.split import as_predictions
from dualview.run.bad_images import BadImages
from dualview.run.directory import RunDir
from dualview.run.trained import TrainedNetwork


def predict_studies(
    network: TrainedNetwork,
    datasets: Mapping[str, StudyDataset],
    *,
    config: Config,
    job: Job,
    progress: Progress,
    log_pos_weight: Mapping[str, float],
    bad_images_in: RunDir | None = None,
) -> dict[str, PredictionTable]:
    """Predict each dataset, every study once, and name -> predictions. All ranks call; all get the same.

    Args:
        network: on the device of the job.
        datasets: name that is shown -> studies, of evaluation, with the findings of the network.
        config: how the images are read and the network is run.
        log_pos_weight: finding -> what the loss has added to its logits.
        bad_images_in: where images that cannot be read are listed; None: with those of the run.

    Raises:
        UserError: an image cannot be read and the policy is `error`, or logits are not finite.
        Preempted: a rank was asked to stop.
    """
    evaluator = Evaluator(
        model=network.model,
        config=config,
        job=job,
        progress=progress,
        bad_images=BadImages(bad_images_in or network.run, policy=config.data.on_bad_image, job=job),
        log_pos_weight=log_pos_weight,
    )
    return {
        name: as_predictions(evaluator.evaluate(dataset, name=name, hide_views=True))
        for name, dataset in datasets.items()
    }
