"""The text normalisers of Whisper, by language, as transformers ships them.

Importing this module loads nothing; `whisper_normaliser` imports transformers' normaliser alone, which takes about
1.5 s and (transformers 5.23) no torch. Not here: scoring.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from tutelage.errors import InputError, MissingExtraError
from tutelage.evaluation.wer import Normaliser

SPACELESS = frozenset({"zh", "yue", "ja", "th", "lo", "my"})
"""Languages written without spaces; the Whisper paper (appendix C) counts their characters as words."""


def whisper_normaliser(language: str, model_folder: Path | None = None) -> Normaliser:
    """The normaliser that Whisper's own figures use for a language.

    English ("en") gets the English normaliser: contractions, titles, numbers written as digits, British spellings
    made American where `model_folder` holds `normalizer.json`. Every other language gets the basic one: lower case,
    text in brackets removed, symbols and punctuation to spaces. Diacritics are kept, as is Whisper's default, so
    that a wrong accent is an error. Languages without spaces are split into letters. Numbers in other languages than
    English stay as they are written.

    Args:
        language: Code such as "es".
        model_folder: A model's folder, for its English spellings.

    Returns:
        A normaliser named "whisper-english", "whisper-english-without-spellings", "whisper-basic" or
        "whisper-basic-split-letters".

    Raises:
        InputError: `normalizer.json` cannot be read.
        MissingExtraError: transformers is not installed.
    """
    try:
        from transformers.models.whisper import english_normalizer
    except ImportError as error:
        raise MissingExtraError("transformers", "speech") from error
    if language == "en":
        spellings = _read_spellings(model_folder)
        english: Callable[[str], str] = english_normalizer.EnglishTextNormalizer(spellings)
        return Normaliser("whisper-english" if spellings else "whisper-english-without-spellings", english)
    split = language in SPACELESS
    basic: Callable[[str], str] = english_normalizer.BasicTextNormalizer(remove_diacritics=False, split_letters=split)
    return Normaliser("whisper-basic-split-letters" if split else "whisper-basic", basic)


def _read_spellings(model_folder: Path | None) -> Mapping[str, str]:
    path = None if model_folder is None else model_folder / "normalizer.json"
    if path is None or not path.is_file():
        return {}
    try:
        spellings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); remove it to score without its spellings") from error
    if not isinstance(spellings, dict):
        raise InputError(f"{path} does not hold a table of spellings; remove it to score without them")
    return spellings
