"""`ubt` as it is, except that trials stop where a test says, until the test has done what it wants to do meanwhile.

This file is run as a program: `python held.py FOLDER sweep smoke …` is `ubt sweep smoke …`. While there is a file
`FOLDER/t0000`, trial t0000 does not go on from the stage that the file names, however slow or quick the machine.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

PATIENCE_SECONDS = 600
"""If the test is killed, nobody lets its trials go on."""


class Holds:
    """Trials that are held. What is held has told of its stage and can only be killed, or interrupted, there."""

    def __init__(self, folder: Path, stage: str, *trials: str) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        for trial in trials:
            (folder / trial).write_text(stage)

    def end(self) -> None:
        for held in self.folder.iterdir():
            held.unlink()


def held(trainable: Any, holds: Path) -> Any:
    """Return the trainable whose trials stop. It travels to the workers by value, and its name is what `ps` shows."""

    class UbtTrainable(trainable):
        reported = None

        def setup(self, config: dict[str, Any]) -> None:
            import torch

            import sweeps.backends.node_facts
            import ubt.engine.runner

            ubt.engine.runner.pick_device = lambda gpus: torch.device("cpu")  # nodes of tests only pretend to have GPUs
            sweeps.backends.node_facts._COUNT_GPUS = "print(1)"
            super().setup(config)

        def step(self) -> dict[str, Any]:
            from sweeps.backends import trainable as module

            module._STEP_SECONDS = 0.0  # every stage is reported by itself: none is passed within a step
            deadline = time.monotonic() + PATIENCE_SECONDS
            while self.is_held() and time.monotonic() < deadline:
                time.sleep(0.05)
            result = super().step()
            self.reported = result.get(module.RECORD, self.reported)
            return result

        def is_held(self) -> bool:
            from ubt.trials.record import TrialRecord

            if self.reported is None:
                return False
            record = TrialRecord.model_validate_json(self.reported)
            try:
                stage = (holds / record.trial).read_text()
            except FileNotFoundError:
                return False
            return stage in [reached.stage for reached in record.stages]

    return UbtTrainable


if __name__ == "__main__":
    from sweeps.backends import node_facts, trainable
    from sweeps.cli.app import main

    node_facts._COUNT_GPUS = "print(1)"  # as it travels to nodes that only pretend to have GPUs
    trainable.UbtTrainable = held(trainable.UbtTrainable, Path(sys.argv[1]))  # type: ignore[misc]
    sys.argv = ["ubt", *sys.argv[2:]]
    main()
