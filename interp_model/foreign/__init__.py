"""Backbones that are not in the table: any module, cut at a named layer."""
