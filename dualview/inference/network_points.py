"""Calibration and thresholds of a trained network: those of its run, or chosen on val for one evaluation."""

import logging
from collections.abc import Sequence

from dualview.config import Config, SeveralImages
from dualview.data.table import StudyTable
from dualview.evaluation.calibrate import fit_calibration
from dualview.evaluation.operating_points import OperatingPoints, choose_operating_points
from dualview.evaluation.points_file import read_operating_points
from dualview.evaluation.prediction_table import PredictionTable
from dualview.evaluation.statistics.thresholds import ThresholdRule
from dualview.run.resume import SEVERAL_IMAGES_KEY
from dualview.run.trained import TrainedNetwork, log_of
from dualview.training.learner import build_criterion

logger = logging.getLogger(__name__)


def log_pos_weight_of(network: TrainedNetwork, *, train: StudyTable, is_main: bool) -> dict[str, float]:
    """What the loss has added to the logits: as the checkpoint says, or counted anew for one that is too old to say."""
    if network.log_pos_weight is not None:
        return network.log_pos_weight
    if is_main:
        logger.warning(
            "checkpoint %s is of a dualview that did not keep the weights of loss.pos_weight, which make probabilities "
            "too high. They are counted anew on the training studies of the table, and undone", network.folder.name,
        )  # fmt: skip
    factors = build_criterion(network.config.loss, train=train).odds_factors(len(train.findings))
    return log_of(factors, findings=network.findings)


def warn_of_scores(network: TrainedNetwork, points: OperatingPoints | None) -> None:
    """Say so where the loss has learned scores, and nothing has made probabilities of them."""
    is_calibrated = points is not None and (
        any(scale != 1 for scale in points.temperature.values())
        or any(point.platt is not None for of_route in points.routes.values() for point in of_route.values())
    )
    if network.config.loss.name != "bce" and not is_calibrated:
        logger.warning(
            "loss.name was %s, which learns scores and not probabilities: sigmoids of them are shown as such until "
            "`dualview evaluate %s --calibrate --set-thresholds`", network.config.loss.name, network.run,
        )  # fmt: skip


def with_images_of_points(config: Config, network: TrainedNetwork, *, overrides: Sequence[str]) -> Config:
    """The configuration with several images of a view taken as for the operating points of the run.

    An override of `data.several_images_at_test` stays; so does what is configured where the run has no such points.
    """
    if not network.is_best or any(override.partition("=")[0] == SEVERAL_IMAGES_KEY for override in overrides):
        return config
    points = read_operating_points(network.run.operating_points)
    if points is None:
        return config
    return with_several_images(config, points.several_images_at_test)


def with_several_images(config: Config, several_images_at_test: SeveralImages) -> Config:
    """The configuration with another `data.several_images_at_test`."""
    data = config.data.model_copy(update={"several_images_at_test": several_images_at_test})
    return config.model_copy(update={"data": data})


def points_of_run(
    network: TrainedNetwork, *, several_images_at_test: SeveralImages | None = None
) -> OperatingPoints | None:
    """The operating points of the run; None where they do not fit, or are of another checkpoint, absent or too old.

    Args:
        several_images_at_test: how one logit is made of several images of a view; None: as for the points.
    """
    file = network.run.operating_points
    if not network.is_best:
        return None
    points = read_operating_points(file)
    if points is None:
        logger.warning("%s is not there, thresholds are chosen on val; --set-thresholds writes it", file)
    elif points.log_pos_weight is None and not network.is_unweighted:
        logger.warning(
            "%s is of a dualview that did not undo loss.pos_weight; thresholds are chosen on val for this evaluation, "
            "and `dualview predict` goes on with those of then. --set-thresholds writes it anew", file,
        )  # fmt: skip
        return None
    elif several_images_at_test not in (None, points.several_images_at_test):
        logger.warning(
            "%s was chosen with data.several_images_at_test %s; with %s thresholds are chosen on val for this "
            "evaluation. --set-thresholds makes `dualview predict` take all images so", file,
            points.several_images_at_test, several_images_at_test,
        )  # fmt: skip
        return None
    return points


def points_from_val(
    val: PredictionTable,
    *,
    rule: ThresholdRule,
    log_pos_weight: dict[str, float],
    calibrate: bool,
    several_images_at_test: SeveralImages = "first",
) -> OperatingPoints:
    """Calibration and thresholds from val; says what is calibrated how."""
    if not calibrate:
        return choose_operating_points(
            val, rule=rule, log_pos_weight=log_pos_weight, several_images_at_test=several_images_at_test
        )
    fitted = fit_calibration(val, log_pos_weight=log_pos_weight)
    for sentence in fitted.said:
        logger.info("calibrated on val, %s", sentence)
    return choose_operating_points(
        val, rule=rule, log_pos_weight=log_pos_weight, temperatures=fitted.temperature, platt=fitted.platt,
        several_images_at_test=several_images_at_test,
    )  # fmt: skip
