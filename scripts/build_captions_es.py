"""Builds `examples/captions_es`, the small speech set that ships with the repository.

Source: Debian package `tuxpaint-stamps-default`, version 2022.06.04-1 (GPL-2), Spanish picture captions read aloud.

    apt-get download tuxpaint-stamps-default=2022.06.04-1
    dpkg-deb -x tuxpaint-stamps-default_2022.06.04-1_all.deb stamps
    python scripts/build_captions_es.py stamps examples/captions_es

Reads `*_desc_es.ogg` and the line `es.utf8=` of the caption beside it; no other language is touched. Deterministic: the
same package and the same libsndfile and libsoxr give the same bytes. The split is seeded, by groups (one recording,
or near-duplicate transcripts), so no group is on both sides.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import random
import re
import shutil
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from tutelage.tasks.speech.groups import group_utterances, words_of

PACKAGE, VERSION = "tuxpaint-stamps-default", "2022.06.04-1"
SEED = 20220604
HELD_OUT_CLIPS = 160
SHORTEST, LONGEST = 0.8, 10.0  # seconds
SAMPLE_RATE = 16_000
OPUS_COMPRESSION = 0.9  # of libsndfile: 0 is 256 kbit/s, 1 is 6 kbit/s, linear between; this is 31 kbit/s
UNREADABLE_SYMBOLS = re.compile(r"[0-9$€¥£%=+º°@#&*/]")

DROPPED = {
    "repeat": "the same recording (hash of its decoded samples) as a clip that is kept, with the same words",
    "disagreeing": "one recording under two captions with different words: which one was read is unknown",
    "symbols": "digits or symbols in the caption: they are read otherwise than they are spelled",
    "fragment": "the caption starts in the middle of a sentence",
    "empty": "no word left after normalisation",
    "short": f"shorter than {SHORTEST} s",
    "long": f"longer than {LONGEST:g} s",
}


@dataclass(frozen=True)
class Caption:
    """One caption read aloud, as the package holds it."""

    id: str
    audio: Path
    text: str
    recording: str  # sha256 of the decoded 16-bit samples
    seconds: float


def read_captions(root: Path) -> list[Caption]:
    """All Spanish captions of the unpacked package, ordered by path."""
    captions = []
    for audio in sorted(root.rglob("*_desc_es.ogg")):
        name = audio.name.removesuffix("_desc_es.ogg")
        lines = (audio.parent / f"{name}.txt").read_bytes().decode("utf-8", errors="replace").splitlines()
        text = next((line.split("=", 1)[1].strip() for line in lines if line.startswith("es.utf8=")), "")
        samples, rate = soundfile.read(audio, dtype="int16", always_2d=True)
        folder = audio.parent.as_posix().split("/stamps/")[-1]
        captions.append(
            Caption(
                id=f"{folder}/{name}".replace("/", "_"),
                audio=audio,
                text=text,
                recording=hashlib.sha256(samples.tobytes()).hexdigest(),
                seconds=len(samples) / rate,
            )
        )
    return captions


def choose(captions: list[Caption]) -> tuple[list[Caption], Counter[str]]:
    """The captions that are kept, and how many were dropped for each reason of `DROPPED`.

    Repeats go first, so that every other count is of distinct recordings.
    """
    by_recording: dict[str, list[Caption]] = defaultdict(list)
    for caption in captions:
        by_recording[caption.recording].append(caption)
    kept, dropped = [], Counter[str]()
    for same in by_recording.values():
        if len({words_of(caption.text) for caption in same}) > 1:
            dropped["disagreeing"] += len(same)
            continue
        dropped["repeat"] += len(same) - 1
        fault = fault_of(same[0])
        if fault:
            dropped[fault] += 1
        else:
            kept.append(same[0])
    return kept, dropped


def fault_of(caption: Caption) -> str:
    """Why a caption is not used (a key of `DROPPED`), or an empty string."""
    if UNREADABLE_SYMBOLS.search(caption.text):
        return "symbols"
    if not words_of(caption.text):
        return "empty"
    if caption.text.startswith(","):
        return "fragment"
    if caption.seconds < SHORTEST:
        return "short"
    return "long" if caption.seconds > LONGEST else ""


def split(captions: list[Caption]) -> tuple[list[str], set[str]]:
    """The group of every caption, and the groups that are held out: whole groups in a seeded order until enough."""
    firsts = group_utterances([c.text for c in captions], [c.recording for c in captions])
    groups = [captions[first].id for first in firsts]
    sizes = Counter(groups)
    order = sorted(sizes)
    random.Random(SEED).shuffle(order)
    held_out: set[str] = set()
    clips = 0
    for group in order:
        # A group that would overshoot is left to training, so the count is met whatever the order.
        if clips + sizes[group] <= HELD_OUT_CLIPS:
            held_out.add(group)
            clips += sizes[group]
    return groups, held_out


def to_mono_16k(audio: Path) -> NDArray[np.float32]:
    """The clip as float32 mono at 16 kHz."""
    samples, rate = soundfile.read(audio, dtype="float32", always_2d=True)
    mono = soxr.resample(samples.mean(axis=1), rate, SAMPLE_RATE, quality="HQ")
    return np.clip(mono, -1.0, 1.0).astype(np.float32)


def encode_opus(samples: NDArray[np.float32], serial: int) -> bytes:
    """Ogg/Opus bytes with the given stream serial number (libsndfile draws one at random)."""
    buffer = io.BytesIO()
    with soundfile.SoundFile(
        buffer, "w", SAMPLE_RATE, 1, format="OGG", subtype="OPUS", compression_level=OPUS_COMPRESSION
    ) as file:
        file.write(samples)
    return with_serial(buffer.getvalue(), serial)


def with_serial(stream: bytes, serial: int) -> bytes:
    """An Ogg stream with the serial number of every page replaced and its checksum made right (RFC 3533, section 6)."""
    pages, start = [], 0
    while start < len(stream):
        segments = stream[start + 26]
        size = 27 + segments + sum(stream[start + 27 : start + 27 + segments])
        page = bytearray(stream[start : start + size])
        if page[:4] != b"OggS":
            raise ValueError(f"no Ogg page at byte {start}.")
        page[14:18] = serial.to_bytes(4, "little")
        page[22:26] = bytes(4)
        page[22:26] = ogg_checksum(page).to_bytes(4, "little")
        pages.append(bytes(page))
        start += size
    return b"".join(pages)


def _checksum_table() -> list[int]:
    table = []
    for byte in range(256):
        value = byte << 24
        for _ in range(8):
            value = ((value << 1) ^ (0x04C11DB7 if value & 0x80000000 else 0)) & 0xFFFFFFFF
        table.append(value)
    return table


_TABLE = _checksum_table()


def ogg_checksum(page: bytes | bytearray) -> int:
    """CRC-32 of an Ogg page: polynomial 04c11db7, not reflected, starting from 0."""
    value = 0
    for byte in page:
        value = ((value << 8) & 0xFFFFFFFF) ^ _TABLE[(value >> 24) ^ byte]
    return value


def write_clip(caption: Caption, folder: Path) -> float:
    """Write the compressed clip; seconds as libsndfile reads it back."""
    path = folder / f"{caption.id}.ogg"
    path.write_bytes(encode_opus(to_mono_16k(caption.audio), int(caption.recording[:8], 16)))
    return float(soundfile.info(path).duration)


def readers_of(root: Path) -> str:
    """The package's own credit for the Spanish voice, read from its change log."""
    log = root / "usr/share/doc" / PACKAGE / "changelog.gz"
    text = gzip.decompress(log.read_bytes()).decode("utf-8", errors="replace")
    entry = re.search(r"\+ Spanish translation\n(?:[^+]*\n)*?\s+Descriptive sounds ([^\n]+)", text)
    if entry is None:
        raise ValueError(f"{log} no longer credits the Spanish descriptive sounds.")
    return entry[1].strip()


def write_set(captions: list[Caption], dropped: Counter[str], root: Path, out: Path) -> None:
    """Write audio, both manifests, the licence and the README."""
    groups, held_out = split(captions)
    audio = out / "audio"
    if audio.exists():
        shutil.rmtree(audio)
    audio.mkdir(parents=True)
    rows: dict[str, list[dict[str, object]]] = {"train": [], "held_out": []}
    for caption, group in zip(captions, groups, strict=True):
        rows["held_out" if group in held_out else "train"].append(
            {
                "id": caption.id,
                "audio": f"audio/{caption.id}.ogg",
                "text": caption.text,
                "duration": round(write_clip(caption, audio), 3),
                "group": group,
            }
        )
    for name, part in rows.items():
        lines = [json.dumps(row, ensure_ascii=False) for row in part]
        (out / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    shutil.copyfile("/usr/share/common-licenses/GPL-2", out / "LICENSE")
    (out / "README.md").write_text(readme(rows, dropped, readers_of(root)), encoding="utf-8")


def readme(rows: dict[str, list[dict[str, object]]], dropped: Counter[str], reader: str) -> str:
    """The README of the set, with its counts."""
    table = [
        f"| {name}.jsonl | {len(part)} | {len({row['group'] for row in part})} "
        f"| {sum(len(str(row['text']).split()) for row in part)} "
        f"| {sum(float(str(row['duration'])) for row in part) / 60:.1f} |"
        for name, part in rows.items()
    ]
    reasons = [f"| {dropped[key]} | {reason} |" for key, reason in DROPPED.items()]
    kept = sum(map(len, rows.values()))
    total = kept + sum(dropped.values())
    return README.format(
        package=PACKAGE,
        version=VERSION,
        reader=reader,
        table="\n".join(table),
        reasons="\n".join(reasons),
        kept=kept,
        total=total,
        seed=SEED,
    )


README = """\
# Spanish picture captions, read aloud

Short captions of the clip-art "stamps" of Tux Paint, each read by a person. Real recorded speech, small enough to ship.

| manifest | clips | groups | words | minutes |
|---|---|---|---|---|
{table}

A manifest is JSON lines, `{{"id", "audio", "text", "duration", "group"}}`; `audio` is relative to the manifest.
Audio is Ogg/Opus, mono, 16 kHz, converted from the stereo 44.1 kHz Vorbis of the package.

**One voice.** The change log of the package credits the Spanish descriptive sounds to one person. What is measured on
this set holds for one speaker, in quiet, reading captions of a few words; it says nothing about other speakers.

## Where it comes from

Debian package `{package}`, version {version}, from Tux Paint's "tuxpaint-stamps".
Copyright 2002-2022 by Bill Kendrick <bill@newbreedsoftware.com> and the authors named in the package's change log;
Spanish translation by Gabriel Gazzan, Teresa Orive, Lantz Gomez de Segura and Matías Bellone; Spanish descriptive
sounds by {reader}. Licence: GNU General Public License, version 2 (`LICENSE`), or, as the package's copyright file
words it, any later version. This folder is under that licence, apart from the rest of the repository; it is not part
of the wheel.

The only changes: clips were chosen, mixed to mono, resampled and compressed; captions are as in the package.
`scripts/build_captions_es.py` makes this folder from the package and says how to unpack it.

## What was left out

Of {total} captions {kept} are kept. Rules are applied in this order, each to what the ones before it left:

| captions | why they are left out |
|---|---|
{reasons}

A few captions are in another language in part (names, festivals), and a reader may depart from the caption here and
there: nothing was corrected by ear, and no recogniser was used to choose clips.

## The split

Two clips are in one group when the word sets of their captions have a Jaccard index of 0.6 or more, directly or through
others (`tutelage.tasks.speech.groups`). Whole groups were held out in a seeded order (seed {seed}), so no group is in
both manifests. Resample groups, not clips, for an interval.
"""


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path, help="the unpacked Debian package")
    parser.add_argument("out", type=Path, help="folder to write, examples/captions_es")
    arguments = parser.parse_args()
    captions = read_captions(arguments.package)
    if not captions:
        raise SystemExit(f"{arguments.package} holds no *_desc_es.ogg: unpack {PACKAGE} {VERSION} there.")
    kept, dropped = choose(captions)
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_set(kept, dropped, arguments.package, arguments.out)
    size = sum(path.stat().st_size for path in arguments.out.rglob("*") if path.is_file())
    print(f"{len(kept)} clips of {len(captions)} captions, {size / 1e6:.2f} MB in {arguments.out}")


if __name__ == "__main__":
    main()
