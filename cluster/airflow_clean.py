"""An Airflow DAG (3.x) that cleans a dataset every hour on a Ray cluster: put it into the dags folder, mark CHANGE.

The worker that runs it needs `ray[default]`. The submission id is that of the run and the try, so that a task that is
run twice submits once and waits for the same job.
"""

import os
import re
import shlex
import time
from datetime import datetime, timedelta

from airflow.sdk import dag, get_current_context, task
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

RAY = os.environ.get("RAY_JOBS_ADDRESS", "http://127.0.0.1:8265")  # CHANGE
COMMAND = [  # CHANGE
    "python", "-m", "jobs.clean",
    "--input", "s3://photographs/in",
    "--output", "s3://photographs/clean",
    "--fail-if", "new.drop>0.5,new.unreadable>0.05",
    "--mlflow-uri", "http://MLFLOW_HOST:5000",
]  # fmt: skip
# exit codes of jobs.clean
GATE_BROKEN, BUSY = 5, 75
POLL_SECONDS = 20


@dag(
    schedule="@hourly",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=5)},
)
def clean_dataset() -> None:
    """One cleaning an hour; an unchanged dataset costs a listing."""

    @task
    def clean() -> None:
        from ray.job_submission import JobStatus, JobSubmissionClient

        instance = get_current_context()["ti"]
        submission = re.sub(r"[^A-Za-z0-9]+", "-", f"clean-{instance.run_id}-{instance.try_number}")
        client = JobSubmissionClient(RAY)
        try:
            client.submit_job(
                entrypoint=shlex.join(COMMAND),
                submission_id=submission,
                # time to finish what is in flight when the job is stopped
                runtime_env={"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "300"}},
            )
        except RuntimeError as error:
            if "already exists" not in str(error):
                raise
        while (status := client.get_job_status(submission)) not in (
            JobStatus.SUCCEEDED,
            JobStatus.FAILED,
            JobStatus.STOPPED,
        ):
            time.sleep(POLL_SECONDS)
        code = client.get_job_info(submission).driver_exit_code
        if code == BUSY:
            raise AirflowSkipException("an earlier start is still at work; the next hour looks again")
        if code == GATE_BROKEN:
            raise AirflowFailException("a quality gate is broken; the version's report says which")
        if status != JobStatus.SUCCEEDED:
            raise RuntimeError(
                f"job {submission} ended as {status}, exit code {code}; a retry goes on with it"
            )

    clean()


clean_dataset()
