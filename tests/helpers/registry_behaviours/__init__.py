"""The table of registries: what each was seen to do, or may do, one row each. The rows are in the modules here."""

from __future__ import annotations

from tests.helpers.registry_behaviours import downloads, lies, logins, tokens, uploads
from tests.helpers.registry_behaviours.setting import BEHAVIOURS

__all__ = ["BEHAVIOURS", "downloads", "lies", "logins", "tokens", "uploads"]
