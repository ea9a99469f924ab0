"""The commands of `orch`: their options, what they print, and their exit codes."""
