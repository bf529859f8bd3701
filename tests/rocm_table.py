"""Writes the facts of the AMD code as a table in Markdown: ``PYTHONPATH=.:tests python tests/rocm_table.py``."""

from __future__ import annotations

from rocm.production import table

if __name__ == "__main__":
    print("\n".join(table()))
