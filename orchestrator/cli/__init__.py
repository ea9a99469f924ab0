"""The commands of `orch`: their options, what they print, and their exit codes.

The first import of every command: nothing is imported from the working folder after it.
"""

from orchestrator.import_path import clean_import_path

clean_import_path()
