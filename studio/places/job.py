"""A Hugging Face Job: a computer of the Hub, rented by the minute.

Each run has a private repository (OWNER/studio-RUN) with the program and the bundle. runs/backup.py copies the
run's checkpoints and result there, so that another Job can continue after one met its time limit. The relay's
lines are read from the Job's log.
"""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, StringConstraints

from studio import program
from studio.errors import DeviceError
from studio.home import write_atomic
from studio.knob import LOADING
from studio.place import Bundle, Machine, RemotePlace, Unreachable

GIB = 2**30
IMAGE = "python:3.11"  # with a compiler, which Triton needs; pip installs torch and CUDA
SET_UP_SECONDS = 900.0  # for packages and the model, added to the forecast
MIN_TIMEOUT = 1800.0  # seconds; the Hub's default


# The Hub's hardware, RAM and price an hour in US dollars, from its documentation of 2026-08. Prices change: see
# `hf jobs hardware`.
FLAVOURS: dict[str, Machine] = {
    "cpu-basic": Machine(None, ram=16 * GIB, price=0.01),
    "cpu-upgrade": Machine(None, ram=32 * GIB, price=0.03),
    "t4-small": Machine("Tesla T4", ram=15 * GIB, price=0.40),
    "t4-medium": Machine("Tesla T4", ram=30 * GIB, price=0.60),
    "l4x1": Machine("NVIDIA L4", ram=30 * GIB, price=0.80),
    "l4x4": Machine("NVIDIA L4", 4, ram=186 * GIB, price=3.80),
    "a10g-small": Machine("NVIDIA A10G", ram=15 * GIB, price=1.00),
    "a10g-large": Machine("NVIDIA A10G", ram=46 * GIB, price=1.50),
    "a10g-largex2": Machine("NVIDIA A10G", 2, ram=92 * GIB, price=3.00),
    "a10g-largex4": Machine("NVIDIA A10G", 4, ram=184 * GIB, price=5.00),
    "l40sx1": Machine("NVIDIA L40S", ram=62 * GIB, price=1.80),
    "l40sx4": Machine("NVIDIA L40S", 4, ram=382 * GIB, price=8.30),
    "l40sx8": Machine("NVIDIA L40S", 8, ram=1534 * GIB, price=23.50),
    "a100-large": Machine("NVIDIA A100 80GB", ram=142 * GIB, price=2.50),
    "a100x4": Machine("NVIDIA A100 80GB", 4, ram=568 * GIB, price=10.00),
    "a100x8": Machine("NVIDIA A100 80GB", 8, ram=1136 * GIB, price=20.00),
    "h200": Machine("NVIDIA H200", ram=256 * GIB, price=5.00),
    "h200x2": Machine("NVIDIA H200", 2, ram=512 * GIB, price=10.00),
    "h200x4": Machine("NVIDIA H200", 4, ram=1024 * GIB, price=20.00),
    "h200x8": Machine("NVIDIA H200", 8, ram=2048 * GIB, price=40.00),
}
REFUSED = {  # what to do, by HTTP's status
    401: "HF_TOKEN is not known to the Hub.",
    402: "The account has no credit for Jobs: see its billing page.",
    403: "The token lacks a right: it must be able to write repositories and to run Jobs.",
}
Hours = Annotated[str, StringConstraints(pattern=r"^\d+(\.\d+)?[smhd]$")]
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Job(RemotePlace):
    """On a Hugging Face Job."""

    label: ClassVar[str] = "A Hugging Face Job"
    about: ClassVar[str] = (
        "A GPU of the Hub for as long as the run takes, paid by the minute. Needs HF_TOKEN of an account "
        "that may run Jobs."
    )
    hardware: ClassVar[Mapping[str, Machine]] = FLAVOURS
    kind: Literal["job"] = Field("job", title="Place", description="A Hugging Face Job.")
    flavor: Literal[tuple(FLAVOURS)] = Field("l4x1", title="Hardware")
    """What the Hub calls it; memory and price stand in the summary."""
    timeout: Literal["auto"] | Hours = Field("auto", title="Time limit")
    """When the Hub ends the Job, such as 90m or 4h. auto: half as long again as the forecast, and a quarter of an hour
    to set up. A run that meets it can be resumed."""
    namespace: str | None = Field(None, pattern=r"^[\w.-]+$", title="Account", json_schema_extra=LOADING)
    """Who pays: you, or an organisation of yours. Left out: you."""

    @property
    def address(self) -> str:
        return f"Job {self.flavor}"

    def machine(self) -> Machine:
        return FLAVOURS[self.flavor]

    def auto_values(self, seconds: float | None) -> dict[str, tuple[Any, str]]:
        why = "half as long again as the forecast, and a quarter of an hour to set up"
        return {"timeout": (f"{round(self.limit(seconds) / 60)}m", why)}

    def limit(self, seconds: float | None) -> float:
        """Seconds after which the Hub ends the Job; seconds: the forecast or None."""
        if self.timeout != "auto":
            return float(self.timeout[:-1]) * SECONDS[self.timeout[-1]]
        return max(MIN_TIMEOUT, 1.5 * (seconds or 4 * 3600) + SET_UP_SECONDS)

    # -- the interface

    def send(self, bundle: Bundle) -> None:
        api, repo = self._api(), self._repo(bundle)
        with _hub_errors("The private repository for the run could not be filled"):
            api.create_repo(repo, private=True, exist_ok=True)
            with tempfile.TemporaryDirectory() as staging:
                (Path(staging) / "requirements.txt").write_text(program.requirements())
                api.upload_folder(
                    repo_id=repo, folder_path=staging, path_in_repo="program", commit_message="what is needed"
                )
            for name, source in program.files().items():
                api.upload_folder(
                    repo_id=repo,
                    folder_path=source,
                    path_in_repo=f"program/{name}",
                    ignore_patterns=["**/__pycache__/**"],
                    commit_message="the program",
                )
            api.upload_folder(
                repo_id=repo,
                folder_path=bundle.folder,
                path_in_repo="box",
                commit_message=f"{bundle.name}, attempt {bundle.attempt}",
            )

    def output(self, bundle: Bundle, events: int, log: int) -> Iterator[bytes]:
        api, has_end = self._api(), False
        with _hub_errors("The Job could not be followed"):
            job = self._job(api, bundle)
            for line in api.fetch_job_logs(job_id=job, namespace=self._owner(api), follow=True):
                has_end = has_end or (line.startswith("@event ") and '"kind": "end"' in line)
                yield line.rstrip("\n").encode()
            status = api.inspect_job(job_id=job, namespace=self._owner(api)).status
        if not has_end:
            raise DeviceError(
                f"The Job ended before the run did: {status.stage}{f', {status.message}' if status.message else ''}.",
                "If it met its time limit, set place.timeout higher. Resume the run: it goes on in a new "
                "Job from the last "
                "checkpoint that was copied to the Hub.",
                "place",
                "place",
            )

    def ask(self, bundle: Bundle, word: str) -> None:
        with _hub_errors("The request could not be passed on"):
            self._api().upload_file(
                repo_id=self._repo(bundle),
                path_or_fileobj=b"\n",
                path_in_repo=f"box/ask-{word}",
                commit_message=f"ask: {word}",
            )

    def fetch(self, bundle: Bundle, target: Path) -> None:
        with (
            _hub_errors("The result could not be fetched"),
            tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetch-") as scratch,
        ):
            self._api().snapshot_download(self._repo(bundle), local_dir=scratch, allow_patterns=["runs/*/model/**"])
            for folder in Path(scratch).glob("runs/*/model"):
                for file in folder.iterdir():
                    file.rename(target / file.name)

    def remove(self, name: str) -> str:
        repo = self._repo(Bundle(name, Path(), 0))
        return (
            f"Its private repository on the Hub, {repo}, stays: delete it there when its checkpoints and result are no "
            "longer wanted."
        )

    # -- the Hub

    def _api(self) -> Any:
        from huggingface_hub import HfApi, get_token

        if not get_token():
            raise DeviceError(
                "A Hugging Face Job needs a token, and there is none.",
                "Set HF_TOKEN (with the right to write repositories and to run Jobs) and start the studio again, "
                "or run `hf auth login`.",
                "place",
            )
        return HfApi()

    def _owner(self, api: Any) -> str:
        from huggingface_hub import get_token

        return self.namespace or _account(api.endpoint, get_token())

    def _repo(self, bundle: Bundle) -> str:
        return f"{self._owner(self._api())}/studio-{bundle.name}"[:96].rstrip("-.")

    def _job(self, api: Any, bundle: Bundle) -> str:
        """The id of this attempt's Job: the stored one, else one of the run in progress, else a new one."""
        id_file = bundle.folder.parent / f"job-{bundle.attempt}"
        if id_file.is_file():
            return id_file.read_text()
        active = api.list_jobs(
            namespace=self._owner(api), labels={"studio": _label(bundle)}, status=["RUNNING", "SCHEDULING"]
        )
        job = next((found.id for found in active), None) or self._start(api, bundle)
        write_atomic(id_file, job)
        return job

    def _start(self, api: Any, bundle: Bundle) -> str:
        from huggingface_hub import get_token

        repo = self._repo(bundle)
        folder = "/tmp/studio"
        relay = shlex.join(["python", "-m", "studio.relay", "--hub", repo, bundle.name, str(bundle.attempt)])
        command = (
            "pip install -q --root-user-action=ignore 'huggingface_hub>=1.0' "
            f"&& hf download {repo} --include 'program/**' --local-dir {folder} >/dev/null && cd {folder}/program "
            f"&& pip install -q --root-user-action=ignore -r requirements.txt && exec {relay}"
        )
        limit = self.limit(bundle.expected() if self.timeout == "auto" else None)
        return api.run_job(
            image=IMAGE,
            command=["bash", "-c", command],
            flavor=self.flavor,
            timeout=int(limit),
            env={"STUDIO_HOME": f"{folder}/home", "STUDIO_BACKUP": repo, "PYTHONUNBUFFERED": "1"},
            secrets={"HF_TOKEN": get_token()},
            labels={"studio": _label(bundle)},
            namespace=self.namespace,
        ).id


@lru_cache(maxsize=8)
def _account(endpoint: str, token: str) -> str:
    """The token's account. Cached, since every request needs it and the Hub limits requests."""
    from huggingface_hub import HfApi

    return HfApi(endpoint, token).whoami()["name"]


def _label(bundle: Bundle) -> str:
    """The label that marks the run's Jobs."""
    return bundle.name[-60:].strip("-.")


@contextmanager
def _hub_errors(what: str) -> Iterator[None]:
    """Turns the Hub's errors into DeviceError, or Unreachable where it does not answer. Never shows the token."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        if status >= 500 or status == 429:
            raise Unreachable(f"{what}: the Hub answers {status}.") from error
        message = f"{what}: the Hub answers {status}. {error.server_message or ''}".strip()
        raise DeviceError(message, REFUSED.get(status, "See the log."), "place") from error
    except (httpx2.HTTPError, ConnectionError, TimeoutError) as error:
        raise Unreachable(f"{what}: the Hub does not answer.") from error
