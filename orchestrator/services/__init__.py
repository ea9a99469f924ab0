"""One function per command: what it does, without printing anything."""
