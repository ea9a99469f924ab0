"""The commands of `orch`: their options, what they print, and their exit codes.

The first import of every command: nothing is imported from the working folder after it.
"""

import gc

from orchestrator.import_path import clean_import_path

clean_import_path()
gc.set_threshold(100_000)  # imports and a store of 10,000 jobs make a million objects, and none of them is garbage

from orchestrator.late_modules import load_late  # noqa: E402 - after the import path is clean

load_late()
