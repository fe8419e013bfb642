"""Progress on long work: what runs, how far it is, at what rate, and how long it still takes.

On a terminal a bar; elsewhere (a log file, a cluster's log stream) a line every ten seconds, so that a log stays
readable.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from tqdm import tqdm
from transformers import TrainerCallback

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments

LINE = "{desc}: {n_fmt}/{total_fmt}, {rate_fmt}, {remaining} left{postfix}"


class Lines(tqdm):
    """A bar for where there is no terminal: whole lines, seldom."""

    def display(self, *_: Any, **__: Any) -> None:
        """Print the present state as a line."""
        if self.n:
            print(self, file=sys.stderr, flush=True)

    def __del__(self) -> None:
        """Nothing: what failed has said its last word, and a line of progress would come after it."""

    def close(self) -> None:
        """Print the last state once."""
        if not self.disable:
            self.display()
            self.disable = True
            self._decr_instances(self)


def progress(what: str, total: int, unit: str, done: int = 0) -> tqdm:
    """A bar over `total` units named `unit`, of which `done` were done before."""
    if sys.stderr.isatty():
        return tqdm(desc=what, total=total, unit=unit, initial=done, dynamic_ncols=True)
    return Lines(desc=what, total=total, unit=unit, initial=done, mininterval=10, miniters=1, bar_format=LINE)


class ShowSteps(TrainerCallback):
    """The training steps of a trainer as progress, with the latest loss."""

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Begin at the step that a checkpoint left off at."""
        self.bar = progress("training", state.max_steps, "step", done=state.global_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """One more."""
        self.bar.update()

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, Any], **_: Any
    ) -> None:
        """Show the loss."""
        if "loss" in logs:
            self.bar.set_postfix_str(f"loss {float(logs['loss']):.4f}", refresh=False)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Done."""
        self.bar.close()
