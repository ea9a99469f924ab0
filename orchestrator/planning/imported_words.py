"""Decides which imported category a word of a sweep means: the one that has the name, unless several data sets have it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from orchestrator.planning.request import SweepRequest
from orchestrator.planning.setting_layers import field_of
from orchestrator.planning.typed import CATEGORIES_FIELD
from schemas.categories import find_categories
from schemas.errors import SpecError
