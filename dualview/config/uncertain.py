"""What training makes of an uncertain label: a report that hedges; -1 in CheXpert and MIMIC-CXR.

    ignore        unknown: masked out of the loss                      U-Ignore, Irvin et al. 2019, arXiv:1901.07031
    zero          negative                                             U-Zeros, ibid.
    one           positive                                             U-Ones, ibid.
    smooth(a,b)   drawn once from the uniform distribution on [a, b]   U-Zeros+LSR and U-Ones+LSR, Pham et al. 2021,
                                                                       arXiv:1911.06475: (0, 0.3) and (0.55, 0.85)

Irvin et al. (table 3) found U-Ones best for Atelectasis and Edema and U-Zeros for Consolidation.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class UncertainPolicy:
    """Bounds of the label that an uncertain one becomes in training; None: it is unknown."""

    bounds: tuple[float, float] | None

    @classmethod
    def parse(cls, text: str) -> "UncertainPolicy":
        """The policy that a text names.

        Raises:
            ValueError: the text names no policy; the message says what is allowed.
        """
        known = {"ignore": None, "zero": (0.0, 0.0), "one": (1.0, 1.0)}
        if text in known:
            return cls(known[text])
        number = r"\s*(\d*\.?\d+)\s*"
        if match := re.fullmatch(rf"smooth\({number},{number}\)", text):
            low, high = float(match[1]), float(match[2])
            if low <= high <= 1:
                return cls((low, high))
        raise ValueError(f"'{text}' is no policy; allowed are ignore, zero, one and smooth(a,b) with 0 <= a <= b <= 1")
