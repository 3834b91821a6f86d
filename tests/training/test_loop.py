"""The loop: schedule, log, devices, files, gradient checkpointing, and what it refuses."""

import json
import signal
import threading

import pytest
import torch
from safetensors import safe_open
from torch import nn

from toy import ToySampler, make_batch, toy_lesson, toy_settings
from tutelage.errors import InputError, InterruptedRunError
from tutelage.training.checkpoint import find_checkpoint, open_checkpoint
from tutelage.training.device import limit_threads, make_optimizer, open_accelerator, require_precision
from tutelage.training.interruption import stop_on_signals
from tutelage.training.loop import Keeping, Stream, Watch, train
from tutelage.training.optimisation import Optimisation, learning_rate_at
from tutelage.training.recompute import recompute_activations
from tutelage.training.step import Lesson, Stepper
from tutelage.training.step_log import StepLog

pytestmark = pytest.mark.usefixtures("no_fsync")
GRADIENT = {"rtol": 1e-5, "atol": 1e-7}  # float32, the same operations recomputed in the same order


def run_toy(folder, lesson=None, settings=None, watch=None, seed=7, **keeping):
    settings = settings or toy_settings()
    return train(
        lesson or toy_lesson(dropout=0.3),
        Stream(ToySampler(settings.batch_size), make_batch),
        settings,
        Keeping(folder, {"steps": settings.steps}, **keeping),
        open_accelerator("cpu"),
        seed,
        watch,
    )


def test_a_training_follows_the_schedule_and_learns(tmp_path):
    lesson = toy_lesson()
    seen = []
    settings = toy_settings(steps=60)
    trained = run_toy(tmp_path, lesson, settings, Watch(on_step=seen.append, measure_every=25))
    assert [report.step for report in seen] == list(range(1, 61))
    assert [report.learning_rate for report in seen] == [learning_rate_at(step, settings) for step in range(60)]
    assert [report.step for report in seen if report.term_gradient_norms] == [1, 26, 51]
    assert sum(r.total for r in seen[-10:]) < 0.9 * sum(r.total for r in seen[:10])
    assert StepLog(tmp_path / "log.jsonl").read() == tuple(seen)
    assert (trained.steps, trained.resumed_from, trained.last) == (60, None, seen[-1])
    assert trained.seconds > 0
    assert not lesson.student.training


def test_the_bar_moves_once_a_step(tmp_path):
    from contextlib import contextmanager

    moves = []

    @contextmanager
    def progress(title, total, unit, done=0):
        moves.append((title, total, unit, done))
        yield lambda count=1, note="": moves.append((count, note[:5]))

    run_toy(tmp_path, watch=Watch(progress=progress))
    assert moves == [("distil", 12, "step", 0), *[(1, "loss ")] * 12]


def test_a_step_sees_batch_size_times_accumulate_samples(tmp_path):
    drawn = []

    def note(indices):
        drawn.append(len(indices))
        return make_batch(indices)

    settings = toy_settings(steps=2, batch_size=4, accumulate=3, warmup_steps=0)
    keeping = Keeping(tmp_path, {})
    train(toy_lesson(), Stream(ToySampler(4), note), settings, keeping, open_accelerator("cpu"), 0)
    assert drawn == [4] * 6


def test_what_ran_before_changes_nothing_but_the_seed_does(tmp_path):
    torch.rand(17)
    first = run_toy(tmp_path / "first").last
    torch.rand(5)
    second = run_toy(tmp_path / "second").last
    third = run_toy(tmp_path / "third", seed=8).last
    assert first == second != third


def test_files_hold_what_is_trained_and_nothing_of_the_teacher(tmp_path, whisper_lesson, clips):
    lesson = whisper_lesson()
    settings = Optimisation(steps=2, batch_size=2, threads=1)
    train(lesson, Stream(ToySampler(2), clips), settings, Keeping(tmp_path, {}), open_accelerator("cpu"), 0)
    trained = set(lesson.trainable())
    assert len(trained) == 2 * 2 * 2 * 2 + 4  # layers, attentions, q and v, A and B; two projectors' weight and bias
    keys = {}
    for file in tmp_path.rglob("*.safetensors"):
        with safe_open(file, "pt") as tensors:
            keys[file.name] = set(tensors.keys())
    assert keys["weights.safetensors"] == trained
    moments = {"step", "exp_avg", "exp_avg_sq"}
    assert keys["moments.safetensors"] == {f"{kind}/{name}" for kind in moments for name in trained}
    assert all(key.startswith("0/") for key in keys["randomness.safetensors"])
    assert all("lora_" in name for name in trained if name.startswith("student."))


def recomputes(model):
    return any(getattr(module, "gradient_checkpointing", False) for module in model.modules())


def test_by_step_two_every_trainable_tensor_has_changed(tmp_path, whisper_lesson, clips):
    for checkpointing in (False, True):
        lesson = whisper_lesson()
        before = {name: parameter.detach().clone() for name, parameter in lesson.trainable().items()}
        # Without decay a tensor moves only if it has a gradient.
        settings = Optimisation(
            steps=2, batch_size=2, weight_decay=0.0, threads=1, gradient_checkpointing=checkpointing
        )
        keeping = Keeping(tmp_path / str(checkpointing), {})
        train(lesson, Stream(ToySampler(2), clips), settings, keeping, open_accelerator("cpu"), 0)
        still = [name for name, parameter in lesson.trainable().items() if torch.equal(parameter, before[name])]
        assert still == []
        assert not recomputes(lesson.student)


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_gradients_with_recomputed_activations_equal_those_without(whisper_lesson, clips, dropout):
    found = []
    for recompute in (False, True):
        lesson = whisper_lesson(dropout)
        with torch.no_grad():  # B starts at 0, which would leave every A without a gradient
            for index, parameter in enumerate(lesson.trainable().values()):
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index)) * 0.1)
        lesson.set_training(True)
        optimizer = torch.optim.SGD(lesson.trainable().values(), lr=0.0)
        torch.manual_seed(3)
        stepper = Stepper(lesson, optimizer, 1e9, open_accelerator("cpu"))
        with recompute_activations(lesson.student, recompute):
            assert recomputes(lesson.student) is recompute
            report = stepper.take(1, [clips([0, 1]), clips([2])], 0.0, measure_terms=True)
        found.append((report, {name: parameter.grad for name, parameter in lesson.trainable().items()}))
    (plain, expected), (recomputed, gradients) = found
    assert recomputed.total == pytest.approx(plain.total, rel=1e-6)
    assert recomputed.term_gradient_norms == pytest.approx(plain.term_gradient_norms, rel=1e-5)
    assert all(norm > 0 for norm in plain.term_gradient_norms.values())
    for name, gradient in expected.items():
        assert gradient.abs().max() > 0, name
        assert torch.allclose(gradients[name], gradient, **GRADIENT), name


def test_a_model_without_recomputation_is_refused(tmp_path):
    with pytest.raises(InputError, match="gradient_checkpointing is on, but ToyModel does not offer it"):
        run_toy(tmp_path, settings=toy_settings(gradient_checkpointing=True))


def test_threads_are_applied_and_put_back(tmp_path):
    before = torch.get_num_threads()
    during = []
    watch = Watch(on_step=lambda report: during.append(torch.get_num_threads()))
    run_toy(tmp_path, settings=toy_settings(steps=3, threads=before + 1), watch=watch)
    assert during == [before + 1] * 3
    assert torch.get_num_threads() == before
    with limit_threads(None):
        assert torch.get_num_threads() == before


def test_the_optimiser_is_fused_adamw_with_the_recipes_decay(tmp_path):
    optimizer = make_optimizer([nn.Parameter(torch.ones(3))], toy_settings(weight_decay=0.25))
    assert optimizer.param_groups[0]["fused"] is True
    assert optimizer.param_groups[0]["weight_decay"] == 0.25
    run_toy(tmp_path)
    environment = open_checkpoint(find_checkpoint(tmp_path / "checkpoints")).environment
    assert environment["optimizer"] == "AdamW, fused"
    assert environment["torch"] == torch.__version__.partition("+")[0] or environment["torch"] == torch.__version__


def test_where_no_fused_kernel_exists_lists_are_used(monkeypatch):
    class OldAdamW(torch.optim.AdamW):
        def __init__(self, parameters, fused=False, **options):
            if fused:
                raise RuntimeError("`fused=True` requires all the params to be of supported devices")
            super().__init__(parameters, **options)

    monkeypatch.setattr(torch.optim, "AdamW", OldAdamW)
    optimizer = make_optimizer([nn.Parameter(torch.ones(3))], toy_settings())
    assert optimizer.param_groups[0]["foreach"] is True
    assert optimizer.param_groups[0]["weight_decay"] == 0.01


@pytest.mark.parametrize(("device", "precision"), [("cpu", "bf16"), ("cpu", "fp16"), ("cuda", "fp16")])
def test_a_precision_that_does_not_fit_is_refused(device, precision):
    with pytest.raises(InputError, match=precision):
        require_precision(device, precision)


def test_bf16_on_a_cpu_is_refused_by_both_doors(tmp_path):
    with pytest.raises(InputError, match="bf16 is refused on a CPU"):
        open_accelerator("cpu", "bf16")

    class Elsewhere:
        device = torch.device("cpu")
        mixed_precision = "bf16"

    settings = toy_settings()
    with pytest.raises(InputError, match="bf16 is refused on a CPU"):
        train(toy_lesson(), Stream(ToySampler(3), make_batch), settings, Keeping(tmp_path / "out", {}), Elsewhere(), 0)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("device", ["cuda", "mps", "tpu"])
def test_a_device_that_is_not_there_is_refused(device, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(InputError, match=device):
        open_accelerator(device)


def test_a_frozen_lesson_is_refused(tmp_path):
    lesson = toy_lesson()
    lesson.student.requires_grad_(False)
    with pytest.raises(InputError, match="Nothing is trained"):
        run_toy(tmp_path, Lesson(lesson.student, {}, lesson.objective, lesson.student_forward))


def test_a_second_training_in_one_folder_is_refused(tmp_path):
    run_toy(tmp_path)
    before = (tmp_path / "log.jsonl").read_bytes()
    with pytest.raises(InputError, match=r"holds a training already \(step-000012\)"):
        run_toy(tmp_path)
    assert (tmp_path / "log.jsonl").read_bytes() == before


def test_the_log_keeps_whole_lines_up_to_a_step(tmp_path):
    run_toy(tmp_path)
    log = StepLog(tmp_path / "log.jsonl")
    whole = log.read()
    with log.path.open("a") as file:
        file.write('{"step": 13, "tot')  # cut off by a kill
    assert log.read() == whole
    log.rewind(9)
    assert log.read() == whole[:9]
    assert [json.loads(line)["step"] for line in log.path.read_text().splitlines()] == list(range(1, 10))


@pytest.fixture
def answered_interrupt():
    """Python's own answer to SIGINT, which a suite started in the background has not: its shell has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("answered_interrupt")
def test_the_first_signal_is_noted_and_the_second_acts():
    before = signal.getsignal(signal.SIGINT)
    with stop_on_signals() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
    with stop_on_signals() as stop:
        assert not stop.requested
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.usefixtures("answered_interrupt")
def test_with_several_processes_the_launchers_second_signal_is_only_noted_too():
    before = signal.getsignal(signal.SIGINT)
    with stop_on_signals(patient=True) as stop:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert stop.requested
    assert signal.getsignal(signal.SIGINT) is before


def test_outside_the_main_thread_signals_are_left_alone():
    seen = []

    def work():
        with stop_on_signals() as stop:
            seen.append((stop.requested, signal.getsignal(signal.SIGINT)))

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(False, before)]


@pytest.mark.parametrize("at", [4, 12])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_step_saves_and_says_how_to_go_on(tmp_path, number, at):
    watch = Watch(on_step=lambda report: signal.raise_signal(number) if report.step == at else None)
    with pytest.raises(
        InterruptedRunError, match=f"Stopped after step {at} of 12; .*: tutelage distil r.yaml --resume"
    ):
        run_toy(tmp_path, watch=watch, resume_command="tutelage distil r.yaml --resume")
    assert open_checkpoint(find_checkpoint(tmp_path / "checkpoints")).step == at
    assert run_toy(tmp_path, resume=True).resumed_from == at
