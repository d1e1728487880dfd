"""What flows between data and models: a batch of studies, and what a network says of it.

Shape legend, used in every docstring and trailing comment of dualview:

    B  studies in a micro-batch          N  rows: the studies of a batch that have a view
    V  views, 2: PA = 0, lateral = 1     D  features after pooling
    C  image channels, 1                 K  findings
    H, W  image height and width, px     R  ranks (world size)

    >>> import torch
    >>> from dualview.batch import StudyBatch
    >>> from dualview.models import build_model
    >>> frontal, side = torch.rand(1, 64, 64), torch.rand(1, 64, 64)
    >>> batch = StudyBatch.from_views(pa=[frontal, frontal, None], lateral=[side, None, side])
    >>> logits = build_model("auxloss", num_findings=14, backbone="densenet_tiny")(batch).by_route(batch)
    >>> logits.shape
    torch.Size([3, 14])
"""

from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from dualview.views import View


class HeadRows(NamedTuple):
    """The rows of a batch that each head has seen, int64; none for a head that a network lacks."""

    joint: Tensor  # (N,)
    pa: Tensor  # (N,)
    lateral: Tensor  # (N,)


class Rows(NamedTuple):
    """Which rows of a batch go where. All are int64, ascending, and made on the CPU.

    They travel with the batch, because asking a mask on the GPU for its rows would stop the GPU.
    """

    pa: Tensor  # (N_pa,) rows of the batch that have a PA image
    lateral: Tensor  # (N_lateral,) rows of the batch that have a lateral image
    both: Tensor  # (N_both,) rows of the batch that have both
    both_in_pa: Tensor  # (N_both,) their positions within `pa`
    both_in_lateral: Tensor  # (N_both,) their positions within `lateral`

    @classmethod
    def of(cls, view_mask: Tensor) -> "Rows":
        """Rows of `view_mask` (B, V) bool, True = image present."""
        has_pa, has_lateral = view_mask[:, View.PA], view_mask[:, View.LATERAL]
        has_both = has_pa & has_lateral

        def positions(mask: Tensor) -> Tensor:
            return mask.nonzero().squeeze(1)

        return cls(
            pa=positions(has_pa),
            lateral=positions(has_lateral),
            both=positions(has_both),
            both_in_pa=positions(has_both[has_pa]),
            both_in_lateral=positions(has_both[has_lateral]),
        )

    @property
    def by_head(self) -> HeadRows:
        """What a joint head of complete studies and two branch heads see."""
        return HeadRows(joint=self.both, pa=self.pa, lateral=self.lateral)


class StudyBatch(NamedTuple):
    """A micro-batch of B studies: the images that exist, packed, and masks that say whose they are.

    An absent view has no pixels here. `labels` are 0 or 1 where `label_mask` is True, or between for a
    smoothed uncertain label (data/load.py); elsewhere they mean nothing and nothing reads them.
    """

    pa: Tensor  # (N_pa, C, H, W) float, in [-1, 1], or stored pixels (data/augment.py); row n is study rows.pa[n]
    lateral: Tensor  # (N_lateral, C, H, W) float, in [-1, 1]; row n is study rows.lateral[n]
    view_mask: Tensor  # (B, V) bool, True = image present
    rows: Rows
    labels: Tensor  # (B, K) float, in [0, 1]
    label_mask: Tensor  # (B, K) bool, True = known
    study_index: Tensor  # (B,) int64, the study's row in the study table
    weight: Tensor  # (B,) float, factor of the study in the loss

    @property
    def num_studies(self) -> int:
        return self.view_mask.shape[0]

    @classmethod
    def from_views(
        cls,
        *,
        pa: Sequence[Tensor | None],
        lateral: Sequence[Tensor | None],
        labels: Tensor | None = None,
        label_mask: Tensor | None = None,
        study_index: Tensor | None = None,
        weight: Tensor | None = None,
        image_shape: tuple[int, int, int] | None = None,
    ) -> "StudyBatch":
        """Pack one image or None per study and view.

        Args:
            pa, lateral: B entries each, (C, H, W) or None where the view does not exist.
            labels: (B, K), in [0, 1]; without it K is 0 and the batch can only be predicted on.
            label_mask: (B, K) bool, True = known; without it every label is known.
            study_index: (B,) int64; without it 0 .. B-1.
            weight: (B,), of each study in the loss; without it 1.
            image_shape: (C, H, W) of the images, needed only where no image says it.

        Raises:
            ValueError: lists of unequal length, a study without any image, images of
                different shapes, or no image at all and no `image_shape`.
        """
        if len(pa) != len(lateral):
            raise ValueError(f"{len(pa)} PA entries but {len(lateral)} lateral entries; give one per study")
        view_mask = torch.tensor(
            [[p is not None, s is not None] for p, s in zip(pa, lateral, strict=True)], dtype=torch.bool
        ).reshape(len(pa), len(View))
        without_image = (~view_mask.any(dim=1)).nonzero().flatten().tolist()
        if without_image:
            raise ValueError(f"studies {without_image} of the batch have no image; leave them out")
        present = [image for image in (*pa, *lateral) if image is not None]
        shapes = {tuple(image.shape) for image in present} | ({image_shape} if image_shape else set())
        if len(shapes) != 1:
            raise ValueError(f"images of one batch must share one shape (C, H, W), found {sorted(shapes)}")
        empty = torch.zeros(0, *shapes.pop(), dtype=present[0].dtype if present else torch.float32)

        def pack(images: Sequence[Tensor | None]) -> Tensor:
            existing = [image for image in images if image is not None]
            return torch.stack(existing) if existing else empty

        if labels is None:
            labels = torch.zeros(len(pa), 0)
        return cls(
            pa=pack(pa),
            lateral=pack(lateral),
            view_mask=view_mask,
            rows=Rows.of(view_mask),
            labels=labels,
            label_mask=torch.ones_like(labels, dtype=torch.bool) if label_mask is None else label_mask,
            study_index=torch.arange(len(pa)) if study_index is None else study_index,
            weight=torch.ones(len(pa), dtype=labels.dtype) if weight is None else weight,
        )

    @classmethod
    def from_dense(
        cls,
        images: Tensor,
        *,
        view_mask: Tensor,
        labels: Tensor | None = None,
        label_mask: Tensor | None = None,
    ) -> "StudyBatch":
        """Pack images (B, V, C, H, W); the pixels where `view_mask` (B, V) is False are never read.

        Raises:
            ValueError: the mask does not fit the images, or a study has no view.
        """
        if images.dim() != 5 or view_mask.shape != images.shape[:2] or images.shape[1] != len(View):
            raise ValueError(
                f"images must be (B, 2, C, H, W) and view_mask (B, 2); found {tuple(images.shape)} "
                f"and {tuple(view_mask.shape)}"
            )

        def existing(view: View) -> list[Tensor | None]:
            return [image if has else None for image, has in zip(images[:, view], view_mask[:, view], strict=True)]

        shape = (images.shape[2], images.shape[3], images.shape[4])
        pa, lateral = existing(View.PA), existing(View.LATERAL)
        return cls.from_views(pa=pa, lateral=lateral, labels=labels, label_mask=label_mask, image_shape=shape)


class HeadWeights(NamedTuple):
    """Learned weights of the heads in the loss of a complete study (models/loss_weights.py)."""

    joint: Tensor  # ()
    pa: Tensor  # ()
    lateral: Tensor  # ()
    log_terms: Tensor  # (), added once per complete study, which keeps the weights from shrinking to nothing


class HeadLogits(NamedTuple):
    """Logits of every head, packed: row n of a head's logits is the study at `rows.HEAD[n]` of the batch.

    A head that ran on nothing, or that a network lacks, has no rows.
    """

    joint: Tensor  # (N, K)
    pa: Tensor  # (N, K)
    lateral: Tensor  # (N, K)
    rows: HeadRows
    weights: HeadWeights | None = None  # learned weights; None in evaluation or without a complete study in the batch

    @classmethod
    def of_every_study(cls, joint: Tensor) -> "HeadLogits":
        """Logits (B, K) of a network whose only head, the joint one, sees every study."""
        nothing, no_row = joint[:0], torch.arange(0, device=joint.device)
        every = torch.arange(joint.shape[0], device=joint.device)
        return cls(joint=joint, pa=nothing, lateral=nothing, rows=HeadRows(joint=every, pa=no_row, lateral=no_row))

    def by_route(self, batch: StudyBatch, *, vote: bool = False) -> Tensor:
        """Logits (B, K) of each study's own route: the joint head where it has seen the study, else its view's head.

        Args:
            vote: complete studies get the mean of the three heads' logits instead; only for networks with three.
        """
        # Under autocast a head that ran is bfloat16 and one without rows is not.
        dtype = reduce(torch.promote_types, (self.joint.dtype, self.pa.dtype, self.lateral.dtype))
        logits = self.pa.new_zeros(batch.num_studies, self.pa.shape[1], dtype=dtype)
        for head in ("pa", "lateral", "joint"):  # Later heads overwrite: the joint head's answer stays.
            logits = logits.index_copy(0, getattr(self.rows, head), getattr(self, head).to(dtype))
        if vote:
            three = (self.joint, self.pa[batch.rows.both_in_pa], self.lateral[batch.rows.both_in_lateral])
            mean = torch.stack([head.to(dtype) for head in three]).mean(dim=0)
            logits = logits.index_copy(0, self.rows.joint, mean)
        return logits
