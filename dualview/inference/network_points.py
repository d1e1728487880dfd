"""Calibration and thresholds of a trained network: those of its run, or chosen on val for one evaluation."""

import logging

from dualview.data.table import StudyTable
from dualview.evaluation.calibrate import fit_calibration
from dualview.evaluation.operating_points import OperatingPoints, choose_operating_points
from dualview.evaluation.points_file import read_operating_points
from dualview.evaluation.prediction_table import PredictionTable
from dualview.evaluation.statistics.thresholds import ThresholdRule
from dualview.run.trained import TrainedNetwork, log_of
from dualview.training.learner import counted_pos_weight

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
    return log_of(counted_pos_weight(train, network.config.loss), findings=network.findings)


def points_of_run(network: TrainedNetwork) -> OperatingPoints | None:
    """The operating points of the run; None where they are of another checkpoint, absent or of an older dualview."""
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
    return points


def points_from_val(
    val: PredictionTable, *, rule: ThresholdRule, log_pos_weight: dict[str, float], calibrate: bool
) -> OperatingPoints:
    """Calibration and thresholds from val; says what is calibrated how."""
    if not calibrate:
        return choose_operating_points(val, rule=rule, log_pos_weight=log_pos_weight)
    fitted = fit_calibration(val, log_pos_weight=log_pos_weight)
    for sentence in fitted.said:
        logger.info("calibrated on val, %s", sentence)
    return choose_operating_points(
        val, rule=rule, log_pos_weight=log_pos_weight, temperatures=fitted.temperature, platt=fitted.platt
    )
