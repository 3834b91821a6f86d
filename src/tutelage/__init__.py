"""Plans, runs and proves model distillation.

Importing this package loads nothing heavy: neither torch nor scipy. See `docs/api.md` for what to import from where.
"""

__version__ = "0.1.0"
