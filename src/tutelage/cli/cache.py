"""Run a recipe's teacher over its training rows or clips once, and keep what it says.

`teacher.cache: DIR` in the recipe then trains from it. A build that was stopped goes on where it was when the same
command is given again. The last line of stdout is the folder.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from tutelage.cli.options import add_options

if TYPE_CHECKING:
    from tutelage.records.document import Document
    from tutelage.runs.attempt import Attempt
    from tutelage.runs.materials import Materials
    from tutelage.runs.speech.caching import SpeechCachePlan
    from tutelage.runs.speech.recipe import SpeechRecipe
    from tutelage.runs.text.caching import TextCachePlan
    from tutelage.runs.text.recipe import TextRecipe
    from tutelage.teachers.target_cache.contents import CacheSettings

KINDS = ("hidden", "topk", "systematic", "multinomial")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `tutelage cache`."""
    parser.add_argument("recipe", type=Path, metavar="RECIPE", help="recipe file (YAML)")
    parser.add_argument("--out", type=Path, metavar="DIR", required=True, help="the cache; a build goes on in it")
    parser.add_argument(
        "--kind",
        choices=KINDS,
        default="hidden",
        help="final states, exact at every temperature; or the likeliest tokens, or draws (default: %(default)s)",
    )
    parser.add_argument("--size", type=int, metavar="K", default=0, help="tokens kept, or drawn, a position")
    add_options(parser, "--set", "--force", "--dry-run", "--device")


def run(arguments: argparse.Namespace) -> int:
    """Build the cache; returns the exit code."""
    from tutelage.cli.output import print_document, progress, talk
    from tutelage.config import dump_recipe
    from tutelage.runs.attempt import Attempt
    from tutelage.runs.cache_folder import check_cache_folder, clear_cache
    from tutelage.runs.tasks import gather_materials
    from tutelage.teachers.target_cache.contents import CacheSettings

    recipe = _read(arguments)
    settings = CacheSettings(arguments.kind, arguments.size, seed=recipe.seed, batch_size=recipe.evaluation.batch_size)
    check_cache_folder(arguments.out)
    attempt = Attempt(
        arguments.out,
        dump_recipe(recipe),
        device=arguments.device or "auto",
        progress=progress(arguments.quiet),
        talk=talk(arguments.quiet),
    )
    materials = gather_materials(
        recipe, progress=attempt.progress, talk=attempt.talk, require_weights=not arguments.dry_run
    )
    plan = _plan(materials, settings, attempt)
    if arguments.dry_run:
        document = plan.document("cache.dry-run", arguments.out)
    else:
        if arguments.force:
            clear_cache(arguments.out)
        document = _build(plan, attempt)
    print_document(document, as_json=arguments.json, human=_lines(document))
    return 0


def _plan(materials: Materials, settings: CacheSettings, attempt: Attempt) -> TextCachePlan | SpeechCachePlan:
    """Of either task; loads torch."""
    from tutelage.runs.speech.materials import SpeechMaterials
    from tutelage.runs.text.materials import TextMaterials

    if isinstance(materials, SpeechMaterials):
        from tutelage.runs.speech.caching import plan_speech_cache

        return plan_speech_cache(materials, settings, attempt)
    if isinstance(materials, TextMaterials):
        from tutelage.runs.text.caching import plan_text_cache

        return plan_text_cache(materials, settings, attempt)
    raise TypeError(f"no task has {type(materials).__name__}")


def _build(plan: TextCachePlan | SpeechCachePlan, attempt: Attempt) -> Document:
    from tutelage.runs.speech.caching import SpeechCachePlan, build_speech_cache
    from tutelage.runs.text.caching import build_text_cache

    return build_speech_cache(plan, attempt) if isinstance(plan, SpeechCachePlan) else build_text_cache(plan, attempt)


def _read(arguments: argparse.Namespace) -> TextRecipe | SpeechRecipe:
    """The recipe, with a teacher that is run."""
    from dataclasses import replace

    from tutelage.config import load_recipe
    from tutelage.errors import InputError
    from tutelage.runs.speech.recipe import SpeechRecipe
    from tutelage.runs.text.recipe import TextRecipe

    recipe = load_recipe(arguments.recipe, arguments.overrides)
    if isinstance(recipe, SpeechRecipe):
        return replace(recipe, teacher=replace(recipe.teacher, cache=None))
    if not isinstance(recipe, TextRecipe) or recipe.teacher is None:
        raise InputError(f"{arguments.recipe}: the recipe names no teacher, so there is nothing to cache.")
    return replace(recipe, teacher=replace(recipe.teacher, cache=None))


def _lines(document: Document) -> str:
    body = document.body
    expected, contents = body["expected"], body["contents"]
    size = f"{expected['bytes_per_token']:g} bytes each, {expected['bytes']:,} bytes expected"
    lines = [f"{contents['kind']}: {expected['rows']:,} rows, {expected['positions']:,} positions, {size}"]
    if "built" in body:
        built = body["built"]
        lines.append(f"{built['bytes']:,} bytes; {built['computed']} shards made, {built['kept']} kept")
    return "\n".join([*lines, str(body["path"])])
