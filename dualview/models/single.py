"""Single: one view's network, on the studies that have the view; the other view is not looked at.

Source: the PA and L baselines of Hashir, Bertrand & Cohen, MIDL 2020 (arXiv:2002.02582).
"""

from dualview.batch import HeadLogits, HeadRows, StudyBatch
from dualview.models.branch import Branch
from dualview.models.network import Network, NetworkSpec
from dualview.views import View


class Single(Network):
    """One branch and its head, under the name of its view."""

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__(spec)
        self.view = spec.view
        self.add_module(self.view.key, Branch(spec.build_backbone(), num_findings=spec.num_findings))

    @property
    def branch(self) -> Branch:
        """The branch of `spec.view`."""
        branch = self.get_submodule(self.view.key)
        assert isinstance(branch, Branch)
        return branch

    def forward(self, batch: StudyBatch) -> HeadLogits:
        """Logits of the branch's head for the studies that have the view, none for others."""
        is_pa = self.view == View.PA
        logits = self.branch.only_logits(batch.pa if is_pa else batch.lateral)
        nothing, no_row = logits[:0], batch.rows.both[:0]
        return HeadLogits(
            joint=nothing,
            pa=logits if is_pa else nothing,
            lateral=nothing if is_pa else logits,
            rows=HeadRows(
                joint=no_row,
                pa=batch.rows.pa if is_pa else no_row,
                lateral=no_row if is_pa else batch.rows.lateral,
            ),
        )


NETWORK = Single
