"""One run, step by step: data, model, the questions before, training, the questions after, export, report.

    python fine_tune.py --run-dir runs/first …      # makes a `Run` and carries it out

Each step finds on disk what an earlier start of the same run has done already.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

from errors import OK, STOPPED

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from evaluation import Evaluation
    from recipe import Recipe
    from run_folder import RunFolder
    from tracking import Tracker
    from trainer import StopOnSignal, Trainer


class Stopped(BaseException):
    """SIGTERM outside of training, where there is no step to wait for; no library's `except Exception` may eat it."""


class Run:
    """One run, step by step; each step finds on disk what an earlier start of it has done."""

    def __init__(self, arguments: argparse.Namespace, recipe: Recipe, run: RunFolder, data: dict[str, str]) -> None:
        self.arguments, self.recipe, self.run, self.data = arguments, recipe, run, data
        self.started = time.monotonic()

    def carry_out(self) -> int:
        """All steps. Returns the exit code."""
        from trainer import StopOnSignal

        stop = StopOnSignal()
        stop.install(_raise_stopped)
        for note in self.recipe.notes:
            print(f"note: {note}")
        train, held_out = self.load_data()
        tokenizer, model = self.load_model(train)
        encoded = self.encode(tokenizer, train, held_out)
        self.check_room(model)
        tracker = self.begin_tracking(model)
        try:
            before = self.ask_before(model, tokenizer, held_out)
            self.keep_base(model, tokenizer)
            tracker.log({f"before/{name}": value for name, value in before.metrics().items()})
            trainer = self.train(model, tokenizer, encoded, tracker, stop)
            if stop.stopped:
                tracker.end("KILLED")
                print(f"stopped at step {trainer.state.global_step} with a checkpoint; the same command goes on")
                return STOPPED
            self.finish(trainer, tokenizer, held_out, before, tracker)
        except BaseException as error:
            # what ended the run is what must be heard of, not that a full disk has no room for its status either
            with contextlib.suppress(Exception):
                tracker.end("KILLED" if isinstance(error, Stopped | KeyboardInterrupt) else "FAILED")
            raise
        return OK

    def load_data(self) -> tuple[Dataset, Dataset]:
        """Both files, checked row by row."""
        from dataset import load_pair

        return load_pair(self.arguments.train_file, self.arguments.eval_file, self.run.cache)

    def load_model(self, train: Dataset) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
        """Tokenizer and model; `tiny`'s tokenizer learns from the training conversations."""
        from model import load_model, load_tokenizer, parameter_count

        texts = (message["content"] for row in train for message in row["messages"])
        tokenizer = load_tokenizer(self.recipe.model, texts)
        model = load_model(self.recipe.model, tokenizer, self.recipe.sft.seed)
        count = parameter_count(model)
        print(f"model {self.recipe.model.model_name_or_path}: {count / 1e6:,.1f} M parameters on {model.device}")
        return tokenizer, model

    def encode(self, tokenizer: PreTrainedTokenizerBase, train: Dataset, held_out: Dataset) -> tuple[Dataset, Dataset]:
        """Token ids, labels and packing as the recipe says."""
        from encoding import encode_dataset

        args = self.recipe.sft
        settings = {"max_length": args.max_length or 1024, "assistant_only": args.assistant_only_loss}
        packed = encode_dataset(train, tokenizer, packing=args.packing, **settings)
        packing = args.packing if args.eval_packing is None else args.eval_packing
        held = encode_dataset(held_out, tokenizer, packing=packing, **settings)
        print(f"data: {len(train)} conversations in {len(packed)} rows to learn, {len(held_out)} held out")
        return packed, held

    def check_room(self, model: PreTrainedModel) -> None:
        """Disk for checkpoints and export, before anything is spent on them; a word if memory may not do."""
        from memory import GIB, available_memory, estimate_run
        from model import parameter_count
        from run_folder import require_space

        need = estimate_run(self.recipe, model.config, parameter_count(model))
        checkpoint = need.gradients + need.optimizer
        copies = (self.recipe.sft.save_total_limit or 2) + 1
        # the export stands twice for a moment: beside, then in place; quantised weights are exported in half precision
        exported = max(need.weights, 2 * parameter_count(model))
        exports = 3 if self.recipe.evaluation.save_base else 2
        require_space(self.run.path, copies * checkpoint + exports * exported - self.run.size(), "this run")
        available = available_memory()
        if available and need.total > available:
            print(
                f"warning: this run needs about {need.total / GIB:.1f} GiB of memory, {available / GIB:.1f} GiB are "
                "there; lower per_device_train_batch_size or max_length"
            )

    def begin_tracking(self, model: PreTrainedModel) -> Tracker:
        """The MLflow run of this run folder."""
        from model import parameter_count, public_name
        from tracking import Tracker, environment

        tracker = Tracker(self.run.path.parent, self.run.path.name, self.run.read_state().get("mlflow_run_id"))
        self.run.write_state(mlflow_run_id=tracker.run_id)
        self.facts = {
            "run": self.run.path.name,
            "recipe": self.recipe.name,
            "model": public_name(self.recipe.model.model_name_or_path),
            "parameters": parameter_count(model),
            **{f"data.{name}.sha256": value for name, value in self.data.items()},
            **environment(),
        }
        tracker.describe({**self.recipe.values, "recipe": self.recipe.name}, self.facts)
        return tracker

    def ask_before(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, held_out: Dataset) -> Evaluation:
        """The base model's answers, kept on disk for a second start."""
        from evaluation import Evaluation
        from run_folder import write_json

        if self.run.before.exists():
            return Evaluation.from_dict(json.loads(self.run.before.read_text(encoding="utf-8")))
        before = self.ask(model, tokenizer, held_out, "asking the base model")
        write_json(self.run.before, asdict(before))
        return before

    def keep_base(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        """Export the model as it is before training, where the recipe asks for it and no earlier start did."""
        from export import export

        target = self.run.path / "base"
        if self.recipe.evaluation.save_base and not target.exists():
            cached = model.config.use_cache
            export(model, tokenizer, target, self.recipe, {**self.facts, "base": True})
            # the export's setting is for generating
            model.config.use_cache = cached

    def ask(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, held_out: Dataset, what: str
    ) -> Evaluation:
        """Evaluate a model on the held-out conversations."""
        from evaluation import evaluate
        from progress import progress

        settings = self.recipe.evaluation
        conversations = held_out["messages"][:]
        asked = min(settings.num_eval_questions, len(conversations))
        with progress(what, len(conversations) + asked, "question") as bar:
            return evaluate(
                model,
                tokenizer,
                conversations,
                questions=settings.num_eval_questions,
                max_new_tokens=settings.eval_max_new_tokens,
                max_length=self.recipe.sft.max_length or 1024,
                batch_size=self.recipe.sft.per_device_eval_batch_size,
                advance=bar.update,
            )

    def train(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        encoded: tuple[Dataset, Dataset],
        tracker: Tracker,
        stop: StopOnSignal,
    ) -> Trainer:
        """Train, from the last whole checkpoint where there is one."""
        from transformers.trainer_callback import PrinterCallback

        from progress import ShowSteps
        from tracking import LogMetrics
        from trainer import SaveAfterEvaluation, StopOnNan, build_trainer, last_whole_checkpoint

        callbacks = [StopOnNan(), ShowSteps(), LogMetrics(tracker), stop, SaveAfterEvaluation()]
        trainer = build_trainer(self.recipe, model, tokenizer, *encoded, callbacks)
        trainer.remove_callback(PrinterCallback)
        checkpoint = last_whole_checkpoint(self.run.checkpoints)
        if checkpoint:
            print(f"going on from {checkpoint.name}")
        self.trained = time.monotonic()
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        self.trained = time.monotonic() - self.trained
        return trainer

    def finish(
        self,
        trainer: Trainer,
        tokenizer: PreTrainedTokenizerBase,
        held_out: Dataset,
        before: Evaluation,
        tracker: Tracker,
    ) -> None:
        """Ask again, export, report, and call the run whole."""
        from export import export
        from report import loss_curve, print_table, write_report
        from run_folder import FINISHED, write_json

        model = self.plain_model(trainer)
        after = self.ask(model, tokenizer, held_out, "asking the tuned model")
        export(model, tokenizer, self.arguments.model_output_dir, self.recipe, self.facts)
        train = self.train_metrics(trainer)
        metrics = {"before": before.metrics(), "after": after.metrics(), "train": train}
        folder = self.run.path
        curve, page, numbers = (folder / name for name in ("loss_curve.png", "report.html", "metrics.json"))
        loss_curve(trainer.state.log_history, curve)
        facts = {**self.facts, **self.recipe.values, **{f"train.{key}": value for key, value in train.items()}}
        write_report(page, f"phikit run {folder.name}", before, after, facts, curve)
        write_json(numbers, metrics)
        tracker.log({f"after/{name}": value for name, value in after.metrics().items()})
        tracker.keep(numbers, curve, page)
        tracker.end("FINISHED")
        self.run.write_state(state=FINISHED)
        self.run.clean()
        print_table(before, after)
        print(f"report {page}\nmodel  {self.arguments.model_output_dir}")

    def plain_model(self, trainer: Trainer) -> PreTrainedModel:
        """The trained model without adapters and without the trainer's wrapping, alone on the device."""
        from export import merged

        trained = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
        device = trained.device
        model = merged(trained, self.recipe)
        # the optimizer, and weights in 4 bits whose merged ones replace them, make room first
        trainer.model = trainer.model_wrapped = trainer.optimizer = trainer.lr_scheduler = None
        trainer.accelerator.free_memory()
        del trained
        return model.to(device)

    def train_metrics(self, trainer: Trainer) -> dict[str, float]:
        """What training came to: the last logged loss, steps, epochs, and the speed of this process's part."""
        from memory import peak_memory

        # a log with no step in it has the mean of all steps still
        entries = trainer.state.log_history
        losses = [entry["loss"] for entry in entries if "loss" in entry]
        losses = losses or [entry["train_loss"] for entry in entries if "train_loss" in entry]
        tokens = trainer._total_train_tokens
        return {
            "loss": losses[-1] if losses else float("nan"),
            "steps": trainer.state.global_step,
            "epochs": trainer.state.epoch or 0.0,
            "seconds": round(self.trained, 2),
            "tokens_per_second": round(tokens / self.trained, 1) if self.trained else 0.0,
            "peak_memory_bytes": peak_memory(),
            "total_seconds": round(time.monotonic() - self.started, 2),
        }


def _raise_stopped() -> None:
    raise Stopped
