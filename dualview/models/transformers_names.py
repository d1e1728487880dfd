"""Names of transformers' DINOv2, as RAD-DINO's, in timm's vision transformer.

Source: `modeling_dinov2.py` of transformers and `vision_transformer.py` of timm.
"""

import re

import torch
from torch import Tensor

MARK = "embeddings.patch_embeddings.projection.weight"
RENAMED = (
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^encoder\.layer\.(\d+)\.attention\.output\.dense\.", r"blocks.\1.attn.proj."),
    (r"^encoder\.layer\.(\d+)\.layer_scale(\d)\.lambda1$", r"blocks.\1.ls\2.gamma"),
    (r"^encoder\.layer\.(\d+)\.(norm[12]|mlp\.\w+)\.", r"blocks.\1.\2."),
    (r"^layernorm\.", "norm."),
)


def is_dinov2(state: dict[str, Tensor]) -> bool:
    """Whether the names are those of transformers' DINOv2."""
    return any(key.endswith(MARK) for key in state)


def in_timms_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same weights as timm has them: queries, keys and values as one matrix, tokens with their positions.

    The mask token, which only pretraining uses, is left out.
    """
    prefix = next(key for key in state if key.endswith(MARK)).removesuffix(MARK)
    theirs = {key.removeprefix(prefix): value for key, value in state.items()}
    ours: dict[str, Tensor] = {}
    for key, value in theirs.items():
        if found := re.match(r"^encoder\.layer\.(\d+)\.attention\.attention\.query\.(\w+)$", key):
            parts = [theirs[key.replace(".query.", f".{name}.")] for name in ("query", "key", "value")]
            ours[f"blocks.{found[1]}.attn.qkv.{found[2]}"] = torch.cat(parts)
        elif key.startswith("embeddings.") and not key.startswith("embeddings.patch_embeddings."):
            continue
        elif ".attention.attention." not in key:
            name = key
            for pattern, replacement in RENAMED:
                name = re.sub(pattern, replacement, name)
            ours[name] = value
    class_token, positions = theirs["embeddings.cls_token"], theirs["embeddings.position_embeddings"]
    if "embeddings.register_tokens" in theirs:
        # timm's networks with registers have no position of the class token; it is part of the token.
        ours["reg_token"] = theirs["embeddings.register_tokens"]
        class_token, positions = class_token + positions[:, :1], positions[:, 1:]
    return {**ours, "cls_token": class_token, "pos_embed": positions}
