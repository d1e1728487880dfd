"""Every key of metrics.jsonl, which are those of wandb too: its unit and what it says.

Whoever records or reads a value takes its key from here. Keys are `section/name`; wandb arranges its workspace by the
sections. `docs/generate/metric_keys.py` makes the README's table of `KEYS`.
"""

import re
from dataclasses import dataclass

from dualview.views import GROUPS

LOSS_TOTAL = "loss/total"
EPOCH, BAD_STEPS = "optim/epoch", "optim/bad_steps_total"
STUDIES_PER_SECOND, IMAGES_PER_SECOND = "speed/studies_per_second", "speed/images_per_second"
SECONDS_PER_STEP, DATA_WAIT_FRACTION = "speed/seconds_per_step", "speed/data_wait_fraction"
LABELLED_STUDIES, BAD_IMAGES = "routing/labelled_studies", "routing/bad_images_total"
NUM_PARAMETERS, BEST_STEP, BEST_VALUE = "model/num_parameters", "best/step", "best/val_value"
VAL_VALUE = "val/value"


def loss(head: str) -> str:
    """Key of the loss of a head, or of `log_terms`."""
    return f"loss/{head}"


def loss_weight(head: str) -> str:
    return f"loss/weight_{head}"


def learning_rate(part: str) -> str:
    return f"optim/learning_rate_{part}"


def gradient_norm(part: str) -> str:
    """Key of the gradient norm of a part of the network, or of `total`."""
    return f"optim/gradient_norm_{part}"


def rows(of: str) -> str:
    """Key of the rows of a view's branch, or of `both`."""
    return f"routing/rows_{of}"


def idle_micro_batches(view: str) -> str:
    return f"routing/idle_micro_batches_{view}"


def split_loss(split: str) -> str:
    return f"{split}/loss"


def split_bad_images(split: str) -> str:
    return f"{split}/bad_images"


def macro(split: str, *, metric: str, group: str) -> str:
    """Key of the mean of `auroc` or `average_precision` over the findings where it is defined."""
    return f"{split}/{metric}_macro_{group}"


def finding_value(split: str, *, metric: str, group: str, finding: str) -> str:
    """Findings have one section per metric and group of studies, so that a workspace shows them side by side."""
    return f"{split}_{metric}_{group}/{finding}"


NAMES_IN_BRACES = {  # name in braces -> regular expression of what stands there
    "head": "joint|pa|lateral|log_terms|distillation",
    "part": "pa|lateral|joint|shared|loss|total",
    "view": "pa|lateral|both",
    "split": "train|val|test",
    "metric": "auroc|average_precision",
    "group": "|".join(GROUPS),
    "finding": ".+",
}


@dataclass(frozen=True)
class MetricKey:
    """A key, or a family of keys with a name in braces."""

    pattern: str
    unit: str
    meaning: str

    def matches(self, key: str) -> bool:
        """Whether a recorded key is this, or of this family."""
        parts = re.split(r"\{(\w+)\}", self.pattern)  # text and names in turn, text first and last
        parts[::2] = map(re.escape, parts[::2])
        parts[1::2] = [f"(?:{NAMES_IN_BRACES[name]})" for name in parts[1::2]]
        return re.fullmatch("".join(parts), key) is not None


_HEAD, _PART, _FINDING = "{head}", "{part}", "{finding}"
KEYS = (
    MetricKey(LOSS_TOTAL, "nats", "training loss of the step: all heads, weighted, per labelled study over all ranks"),
    MetricKey(loss(_HEAD), "nats", "its share of each head, of `log_terms` where learned, and of `distillation`"),
    MetricKey(loss_weight(_HEAD), "1", "learned weight of a head (`loss.learned_weights`)"),
    MetricKey(learning_rate(_PART), "1", "of the pa, lateral, joint, shared and loss part"),
    MetricKey(gradient_norm(_PART), "1", "L2 norm of a part before clipping, and `total`"),
    MetricKey(EPOCH, "epochs", "passes over the training split so far"),
    MetricKey(BAD_STEPS, "steps", "skipped so far, because a loss or gradient was not finite"),
    MetricKey(rows("{view}"), "per step", "images through the PA and the lateral branch; studies through both"),
    MetricKey(idle_micro_batches("{view}"), "per step", "micro-batches without an image of the view, over all ranks"),
    MetricKey(LABELLED_STUDIES, "per step", "studies with a known label"),
    MetricKey(BAD_IMAGES, "images", "that could not be read in training, so far"),
    MetricKey(IMAGES_PER_SECOND, "1/s", "images trained on, over all ranks"),
    MetricKey(STUDIES_PER_SECOND, "1/s", "studies trained on, over all ranks"),
    MetricKey(SECONDS_PER_STEP, "s", "per optimizer step, mean over ranks and steps since the last record"),
    MetricKey(DATA_WAIT_FRACTION, "0 to 1", "share of that time spent waiting for data"),
    MetricKey(split_loss("{split}"), "nats", "val and test: unweighted loss of the route's head, per labelled study"),
    MetricKey(split_bad_images("{split}"), "images", "of val and test that could not be read"),
    MetricKey(
        macro("{split}", metric="{metric}", group="{group}"), "0 to 1",
        f"val and test: auroc and average_precision, mean over findings; {', '.join(GROUPS)}",
    ),
    MetricKey(
        finding_value("{split}", metric="{metric}", group="{group}", finding=_FINDING), "0 to 1",
        "the same for each finding",
    ),
    MetricKey(VAL_VALUE, "0 to 1", "`train.best_metric` on val, by which the best checkpoint is chosen"),
    MetricKey(NUM_PARAMETERS, "parameters", "summary: of the whole network"),
    MetricKey(BEST_STEP, "steps", "summary: of the best checkpoint"),
    MetricKey(BEST_VALUE, "0 to 1", "summary: its `train.best_metric` on val"),
)  # fmt: skip
