"""A model of ModelScope, fetched to a folder by ModelScope's own downloader.

vLLM could fetch it by itself (VLLM_USE_MODELSCOPE), with a package that is in no image: it would bring a hub's client
into every one of them for those who use that hub.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from images.core import RegistryFailure, Report, process, provide_environment
from images.run.serve.source import Source, check_folder

LOCK = Path(__file__).parents[3] / "dev" / "modelscope.lock"
# What a server reads; repositories also hold pictures, and the same weights in other forms.
WANTED = ("*.json", "*.safetensors", "*.txt", "*.jinja")
_SECONDS = 24 * 3600.0


def wanted(environment: Mapping[str, str]) -> bool:
    """Whether vLLM's own variable asks for ModelScope."""
    return environment.get("VLLM_USE_MODELSCOPE", "").strip().lower() in ("1", "true")


def folder_of(home: Path, repository: str) -> Path:
    """Where a repository is kept, below ``home``: what is there already is not fetched again."""
    return home / "models" / "modelscope" / repository


def words(program: str, repository: str, folder: Path) -> list[str]:
    """The command that fetches it."""
    return [program, "download", repository, "--local-dir", str(folder), "--include", *WANTED]


def source_of(home: Path, source: Source, report: Report) -> Source:
    """The folder of a hub's model, fetched from ModelScope; a folder of the user's as it is.

    Raises RegistryFailure where ModelScope does not give it, UsageError where what came is no whole model.
    """
    if source.folder:
        return source
    folder = folder_of(home, source.repository)
    python = provide_environment(LOCK, home, report.line)
    folder.mkdir(parents=True, exist_ok=True)
    with report.step(f"fetch {source.repository} from ModelScope") as step:
        argv = words(str(python.parent / "modelscope"), source.repository, folder)
        try:
            process.run(argv, env={"TQDM_DISABLE": "1"}, timeout=_SECONDS)
        except process.ProcessFailed as error:
            raise RegistryFailure(
                f"{source.repository} could not be fetched from ModelScope",
                cause="\n".join(error.tail.strip().splitlines()[-1:]),
                do="see that this machine reaches it (HTTPS_PROXY) and that the name is right; the same again goes on",
            ) from error
        step.size(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()))
    return Source(source.repository, folder=str(check_folder(folder.resolve())))


def planned(home: Path, source: Source, report: Report) -> Source:
    """The same for a line that is only printed: nothing is fetched, and what to fetch is told where it is not there."""
    if source.folder:
        return source
    folder = folder_of(home, source.repository).absolute()
    if not (folder / "config.json").is_file():
        report.line(f"fetched first: {' '.join(words('modelscope', source.repository, folder))}")
    return Source(source.repository, folder=str(folder))
