"""Groups of ranks that tests of this folder run."""

import pytest

from tests.support.process_group import ProcessGroups


@pytest.fixture(scope="session")
def on_ranks(tmp_path_factory) -> ProcessGroups:
    """`on_ranks(2, function, ...)` runs the function on two ranks of one world, without a launcher."""
    return ProcessGroups(tmp_path_factory.mktemp("groups"))
