"""An Airflow like one on several machines: PostgreSQL, Redis, Celery, two workers, two triggerers, one scheduler."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from scripts.distributed.servers import postgres, redis
from scripts.real_airflow import RealAirflow, task_name

WORKERS = ("worker-1", "worker-2")
TRIGGERERS = ("triggerer-1", "triggerer-2")

#: The settings that docs/sizing.md explains, with Airflow's defaults as comments. Short times make a run short.
SETTINGS = {
    "AIRFLOW__CELERY__WORKER_CONCURRENCY": "2",  # 16
    "AIRFLOW__CORE__PARALLELISM": "32",  # 32; RealAirflow has less
    # Seconds without a heartbeat after which a task fails and is retried.
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "40",  # 300
    # Seconds after which a task that a worker has received but not started is queued again.
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "90",  # 600
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "15",  # 120
    # Seconds between checks for tasks of a dead scheduler.
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "30",  # 300
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "1",  # 1; RealAirflow has less
}


class DistributedAirflow(RealAirflow):
    """RealAirflow on servers like those of a large deployment.

    Each component believes that it runs on its own machine, whose host name is the component's name.

    :param database: The address that `servers.postgres` yields.
    :param broker: The URL of Redis.
    """

    components: ClassVar = {
        **{name: (name,) for name in ("api-server", "scheduler", "dag-processor")},
        **dict.fromkeys(TRIGGERERS, ("triggerer", "--skip-serve-logs")),
        **{name: ("celery", "worker", "--celery-hostname", name, "--skip-serve-logs") for name in WORKERS},
    }

    def __init__(
        self,
        *,
        dags_folder: Path,
        database: str,
        broker: str,
        env: Mapping[str, str],
        log: Callable[[str], None],
    ) -> None:
        servers = {
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"postgresql+psycopg2://{database}",
            "AIRFLOW__CELERY__RESULT_BACKEND": f"db+postgresql+psycopg2://{database}",
            "AIRFLOW__CELERY__BROKER_URL": broker,
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
            "AIRFLOW__CORE__HOSTNAME_CALLABLE": "machine.name",
        }
        self._database = database
        super().__init__(dags_folder=dags_folder, env={**SETTINGS, **servers, **env}, log=log, start_timeout=300)
        shutil.copytree(Path(__file__).parent / "config", self.home / "config")

    def env_of(self, component: str) -> dict[str, str]:
        """The environment of a component."""
        return {**self.env, "MACHINE": component}

    def watcher(self) -> str:
        """Return the triggerer that watches for batches that end."""
        import psycopg2

        query = "SELECT hostname FROM job JOIN trigger ON job.id = trigger.triggerer_id WHERE classpath LIKE %s"
        with contextlib.closing(psycopg2.connect(f"postgresql://{self._database}")) as connection:
            cursor = connection.cursor()
            cursor.execute(query, ["%BatchesEndedTrigger"])
            found = cursor.fetchone()
        return str(found[0]) if found else "none"

    def triggers(self, dag_id: str, run_id: str) -> dict[str, str]:
        """Return the triggerer of each deferred task."""
        jobs = self.api("GET", "/jobs", params={"job_type": "TriggererJob", "limit": 100})["jobs"]
        machines = {job["id"]: str(job["hostname"]) for job in jobs}
        tasks = [task for task in self.task_instances(dag_id, run_id) if task["trigger"]]
        return {task_name(task): machines.get(task["trigger"]["triggerer_id"], "none") for task in tasks}


@contextlib.contextmanager
def distributed_airflow(
    *, dags_folder: Path, env: Mapping[str, str], log: Callable[[str], None]
) -> Iterator[DistributedAirflow]:
    """Run PostgreSQL, Redis and an Airflow on them."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="airflow-servers-")))
        # PostgreSQL may run as another user.
        folder.chmod(0o755)
        for name in ("postgresql", "redis"):
            (folder / name).mkdir()
        database = stack.enter_context(postgres(folder / "postgresql"))
        broker = stack.enter_context(redis(folder / "redis"))
        log("PostgreSQL and Redis are up")
        airflow = DistributedAirflow(dags_folder=dags_folder, database=database, broker=broker, env=env, log=log)
        yield stack.enter_context(airflow)
