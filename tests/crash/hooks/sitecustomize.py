"""Python imports this at the start of every process whose PYTHONPATH names this folder: the job, and Ray's workers."""

import crash_points

crash_points.install()
