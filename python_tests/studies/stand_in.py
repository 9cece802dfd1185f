"""Stands for `python -m cdkd_ext.cli` in the engine's tests: leaves the files of a run, and does as its words say.

Every start and end is a line in the file JOURNAL of the study's folder.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path


def main() -> int:
    words = sys.argv[1:]
    resumed = words[1].partition("=")[2] if words[1].startswith("--resume=") else ""
    own = Path(resumed or words[words.index("--output") + 1])
    given = json.loads((own / "words.json").read_text()) if resumed else words
    folder = own.parent if words[0] == "eval" else own
    (folder / "words.json").write_text(json.dumps(given))

    def note(what: str) -> None:
        with (folder.parent / "JOURNAL").open("a") as journal:
            journal.write(f"{what} {folder.name} {os.environ['OMP_NUM_THREADS']}\n")

    def keep(number: int, frame: object) -> None:
        (folder / "state.pt").touch()
        note("keeps")
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, keep)
    (folder / "config.yaml").write_text("epochs: 2\n")
    note("resumes" if resumed else "starts")
    if "--fail" in given:
        print("what went wrong\n")
        return 2
    (folder / "tensorboard").mkdir(exist_ok=True)
    while "--wait" in given and not (folder.parent / given[given.index("--wait") + 1]).exists():
        time.sleep(0.01)
    if words[0] == "eval":
        own.write_text(json.dumps({"pckh": 50.0}))
    else:
        records = [{"epoch": epoch, "seconds": 2.0, "pckh": 40.0 + epoch} for epoch in (1, 2)]
        (folder / "metrics.json").write_text(json.dumps({"best_pckh": 42.0, "epochs": records}))
    note("ends")
    return 0


if __name__ == "__main__":
    sys.exit(main())
