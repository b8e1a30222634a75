"""Lint of dataset files: what is wrong with them, by file, line and row, and what can be fixed safely."""

from elysia.data.lint.autofix import fix_file
from elysia.data.lint.lint_report import FileReport, LintFinding, format_findings, to_html, to_json
from elysia.data.lint.lint_run import lint_files

__all__ = [
    "FileReport",
    "LintFinding",
    "fix_file",
    "format_findings",
    "lint_files",
    "to_html",
    "to_json",
]
