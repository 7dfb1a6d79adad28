"""What makes the book's pages: chapters, their records and claims, and the stamp under each title."""

from . import claims, results
from .chapter import Chapter

__all__ = ["Chapter", "claims", "results"]
