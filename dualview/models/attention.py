"""Attention fusion: the feature maps of the views that exist become tokens, and one head reads them all.

Each position of a view's last feature map is a token: projected, with its position and its view added. A class
token attends to the tokens of its study through a transformer encoder (Vaswani et al. 2017, arXiv:1706.03762; class
token of Dosovitskiy et al. 2021, arXiv:2010.11929); tokens of absent views are masked out of attention, so the same
head serves every availability.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from dualview.batch import HeadLogits, StudyBatch
from dualview.models.backbone import DENSENETS, Backbone
from dualview.models.branch import ViewPart, branch_per_view, linear_head
from dualview.models.idle import nothing_of
from dualview.models.network import Network, NetworkSpec

WIDTH, ATTENTION_HEADS, LAYERS = 256, 8, 2


class Attention(Network):
    """Tokens of both branches, a transformer encoder and one head."""

    joint_sees_all = True

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__(spec)
        # Backbones other than DenseNets have no dropout of their own; the encoder has it with any backbone.
        backbone_spec = spec if spec.backbone in DENSENETS else replace(spec, dropout=0.0)
        self.pa, self.lateral, shared = branch_per_view(
            TokenBranch, backbone=backbone_spec.build_backbone, shared=spec.shared_branch
        )
        self.joint = _Reader(num_findings=spec.num_findings, dropout=spec.dropout)
        self._share(shared, self.pa, self.lateral)

    def forward(self, batch: StudyBatch) -> HeadLogits:
        """Logits of the one head for every study."""
        tokens = [self.pa(batch.pa), self.lateral(batch.lateral)]  # (N, tokens, WIDTH) each
        per_view = max(view_tokens.shape[1] for view_tokens in tokens)
        padded = [
            view_tokens.new_zeros(batch.num_studies, per_view, WIDTH).index_copy(0, rows, view_tokens)
            if view_tokens.shape[1] == per_view  # not the token of a branch that did not run
            else view_tokens.new_zeros(batch.num_studies, per_view, WIDTH)
            for view_tokens, rows in zip(tokens, (batch.rows.pa, batch.rows.lateral), strict=True)
        ]
        is_absent = ~batch.view_mask.repeat_interleave(per_view, dim=1)  # (B, 2 x per_view)
        joint = self.joint(torch.cat(padded, dim=1), is_absent=is_absent)
        return HeadLogits.of_every_study(joint)


class TokenBranch(ViewPart):
    """A backbone whose feature map becomes tokens."""

    def __init__(self, backbone: Backbone, *, is_owner: bool) -> None:
        super().__init__(backbone, is_owner=is_owner)
        self.to_token = nn.Linear(backbone.num_channels, WIDTH)
        self.view = nn.Parameter(torch.zeros(WIDTH))
        nn.init.normal_(self.view, std=0.02)

    def forward(self, images: Tensor) -> Tensor:
        """Tokens (N, h w, WIDTH); (0, 1, WIDTH) of an idle branch."""
        if self.backbone.is_idle(images):
            return images.new_zeros(0, 1, WIDTH)
        _, feature_map = self.feature_maps(images)
        if self.backbone.ends_with_relu:
            feature_map = feature_map.relu()
        position = positions(*feature_map.shape[2:], like=feature_map)
        tokens: Tensor = self.to_token(feature_map.flatten(2).transpose(1, 2)) + position + self.view
        return tokens


class _Reader(nn.Module):
    """Logits from the tokens of the views: class token, transformer encoder, linear head."""

    def __init__(self, *, num_findings: int, dropout: float) -> None:
        super().__init__()
        self.class_token = nn.Parameter(torch.zeros(WIDTH))
        nn.init.normal_(self.class_token, std=0.02)
        layer = nn.TransformerEncoderLayer(
            WIDTH, ATTENTION_HEADS, dim_feedforward=4 * WIDTH, dropout=dropout, batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, LAYERS, norm=nn.LayerNorm(WIDTH), enable_nested_tensor=False)
        self.head = linear_head(WIDTH, num_findings)

    def forward(self, tokens: Tensor, *, is_absent: Tensor) -> Tensor:
        """Tokens (B, T, WIDTH) and which of them are absent (B, T) bool, to logits (B, K)."""
        num_studies = tokens.shape[0]
        if num_studies == 0:  # torch's attention does not run on no rows.
            nothing: Tensor = tokens.new_zeros(0, self.head.out_features) + tokens.sum() + nothing_of(self)
            return nothing
        sequence = torch.cat([self.class_token.to(tokens.dtype).expand(num_studies, 1, WIDTH), tokens], dim=1)
        mask = torch.cat([is_absent.new_zeros(num_studies, 1), is_absent], dim=1)
        read = self.encoder(sequence, src_key_padding_mask=mask)
        logits: Tensor = self.head(read[:, 0])
        return logits


def positions(height: int, width: int, *, like: Tensor) -> Tensor:
    """Sinusoids (h w, WIDTH), half of the channels for the row and half for the column (arXiv:1706.03762, 3.5)."""
    frequency = torch.exp(torch.arange(0, WIDTH // 2, 2) * (-math.log(10000.0) / (WIDTH // 2)))

    def sinusoids(length: int) -> Tensor:
        angle = torch.arange(length)[:, None] * frequency
        return torch.cat([angle.sin(), angle.cos()], dim=1)  # (length, WIDTH / 2)

    rows, columns = sinusoids(height), sinusoids(width)
    grid = torch.cat([rows[:, None].expand(height, width, -1), columns[None].expand(height, width, -1)], dim=2)
    return grid.reshape(height * width, WIDTH).to(like)


NETWORK = Attention
