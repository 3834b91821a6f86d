"""Which decoder layers of a Whisper model stay, by its loss on the first batches that training will draw.

Covers the batches, their encoder outputs at the student's window, and the loss. Does not cover skipping layers and
choosing (`students.sensitivity`).
"""

from __future__ import annotations

from typing import Any

from tutelage.models.load import SpeechModel
from tutelage.objectives.likelihood import cross_entropy
from tutelage.objectives.reduction import Reduced
from tutelage.runs.attempt import Attempt
from tutelage.runs.speech.materials import SpeechMaterials
from tutelage.students.sensitivity import LayerChoice, choose_by_sensitivity
from tutelage.students.shrink import shrink_speech_model
from tutelage.tasks.sampler import EpochSampler
from tutelage.tasks.speech.batch import SpeechBatch, SpeechExamples
from tutelage.tasks.speech.features import FrozenEncoder
from tutelage.tasks.speech.forward import decode
from tutelage.tasks.speech.labels import LabelCodec, require_language
from tutelage.teachers.prefix_cache import PrefixCache


def choose_decoder_layers(materials: SpeechMaterials, source: SpeechModel, attempt: Attempt) -> LayerChoice:
    """Measure the model that the student is cut out of.

    Args:
        materials: The recipe says how many layers stay, and with its seed and batch size which clips are heard.
        source: Not cut yet.
        attempt: Told of the work and of the choice.

    Raises:
        InputError: As `choose_by_sensitivity`, or the model does not know the language.
    """
    recipe = materials.recipe
    design, data = recipe.student, recipe.data
    if not isinstance(design.decoder_layers, int):
        raise ValueError("a recipe that chooses layers by sensitivity says how many")
    require_language(source.model.generation_config, data.language)
    speech = shrink_speech_model(source, None, design.window_seconds).speech
    clips = materials.train.utterances
    sampler = EpochSampler(len(clips), recipe.training.batch_size, recipe.order_seed)
    drawn = [sampler.next_batch() for _ in range(design.sensitivity_batches)]
    heard = sorted({index for batch in drawn for index in batch})
    place = {index: position for position, index in enumerate(heard)}
    some = [clips[index] for index in heard]
    encoder = FrozenEncoder(speech.model, speech.processor.feature_extractor)
    outputs = PrefixCache(encoder, talk=attempt.talk).get_or_compute(some, progress=attempt.progress)
    codec = LabelCodec(speech.processor.tokenizer, data.language, data.task)
    examples = SpeechExamples(some, outputs, codec, int(speech.model.config.max_target_positions))
    batches = [examples.batch([place[index] for index in batch]).to(speech.model.device) for batch in drawn]
    choice = choose_by_sensitivity(speech.model, design.decoder_layers, batches, _loss)
    attempt.talk(choice.describe())
    return choice


def _loss(model: Any, batch: SpeechBatch) -> Reduced:
    return cross_entropy(decode(model, batch).logits_BTV, batch.labels_BT, batch.keep_BT)
