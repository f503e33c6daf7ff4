"""The help of commands with many options, by what they are about."""

from __future__ import annotations

import click

SECTIONS = {
    "What is kept": ("macs", "params", "size", "latency", "latency_batch", "channels"),
    "Data": (
        "calibration", "samples", "moments", "save_moments", "mean", "std", "resize", "crop", "scale", "layout",
        "sizes",
    ),
    "Accuracy": ("evaluation", "evaluate_samples", "metric", "max_drop", "smallest"),
    "Method": (
        "methods", "preset", "effort", "criterion", "allocation", "reconstruct", "align", "exclude", "keep_blocks",
        "inexact", "replace_head", "episodes", "seed",
    ),
    "Fine-tuning": (
        "teacher", "train", "train_samples", "epochs", "updates", "batch", "optimiser", "rate", "schedule_rate",
        "warmup", "milestones", "gamma", "momentum", "decay", "clip", "average", "temperature", "labels", "features",
        "augment", "precision", "frozen_batch_norm", "frozen_statistics", "scratch", "workers", "recipe_file",
        "schedule", "steps", "resume",
    ),
    "Files and what is said": (
        "output", "plan_file", "report", "save_all", "no_models", "as_json", "config", "save_config", "quiet",
        "verbose", "log_file",
    ),
    "Machine": ("device", "no_latency", "threads"),
}  # fmt: skip
_OTHER = "Other options"


class SectionedCommand(click.Command):
    """A command whose help has its options in sections; those that no section names come last."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, parameters in sections(self.get_params(ctx)).items():
            rows = [row for parameter in parameters if (row := parameter.get_help_record(ctx)) is not None]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


def sections(parameters: list[click.Parameter]) -> dict[str, list[click.Parameter]]:
    """Title -> its parameters, in the order of SECTIONS."""
    by_name: dict[str, click.Parameter] = {str(p.name): p for p in parameters if isinstance(p, click.Option)}
    found = {title: [by_name.pop(name) for name in names if name in by_name] for title, names in SECTIONS.items()}
    return {**found, _OTHER: list(by_name.values())}
