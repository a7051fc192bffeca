"""What the flow asks of a cluster, without one."""

import pytest

from pipeline.config import UsageError
from pipeline.flow import refuse_empty


@pytest.mark.parametrize(
    ("device", "engines", "readers"), [("auto", 4, 8), ("cuda", 0, 8), ("cuda", 4, 0), ("auto", 0, 0)]
)
def test_a_cluster_whose_machines_are_yet_to_come_is_not_counted(device, engines, readers):
    with pytest.raises(UsageError, match="say --device, --engines and --readers"):
        refuse_empty({"memory": 1e9}, device, engines, readers)
    refuse_empty({"CPU": 1.0}, device, engines, readers)


def test_a_cluster_without_machines_takes_a_run_that_says_what_it_wants():
    refuse_empty({"memory": 1e9}, "cuda", 4, 8)
