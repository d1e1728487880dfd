"""The studies of a run, as its network takes them and where this node reads them."""

import logging
from dataclasses import dataclass

from dualview.config import Config
from dualview.data import Data, check_labels, load_data
from dualview.data.account import left_out_of_training
from dualview.data.dataset import StudyDataset
from dualview.distributed import Job
from dualview.studies import datasets, for_network, node_store

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Studies:
    """Studies of each split, as tables and as datasets to train on and to evaluate."""

    data: Data  # of each split what the network can take
    whole: Data  # before studies were left out for the network's sake
    train: StudyDataset  # with augmentation
    val: StudyDataset
    test: StudyDataset


def load_studies(config: Config, *, job: Job) -> Studies:
    """Read the tables of a run that trains; images are read later, study by study. All ranks call.

    Raises:
        UserError: problems of the tables or of the image store, or nothing that could be learned.
    """
    whole = load_data(config.data, seed=config.data_seed, store=node_store(config, job=job))
    left_out = left_out_of_training(whole)
    if left_out["studies"] and job.is_main:
        logger.info(
            "data.split.max_train_patients, data.train_on leave out %d training studies and %d patients altogether",
            left_out["studies"],
            left_out["patients"],
        )
    data = for_network(whole, config, job=job)
    check_labels(data.train)
    if config.data.augment.horizontal_flip_probability and job.is_main:
        logger.warning("data.augment.horizontal_flip_probability mirrors images: hearts come out on the right")
    train, val, test = datasets(data, config)
    return Studies(data=data, whole=whole, train=train, val=val, test=test)
