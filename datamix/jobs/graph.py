"""Draw the pipeline: a tree in the terminal, a Mermaid diagram in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datamix.builder.built import build
from datamix.config.schema import Config
from datamix.report.console import console_of, percent, print_notes
from datamix.report.contents import report_of_whole_mix
from datamix.report.files import write_report, write_text


def run(config: Config, directory: Path) -> dict[str, Any]:
    """Print the pipeline's tree and write `graph.mmd`.

    No record is read, except leaves that the plan or the labels depend on.
    """
    built = build(config)
    out = console_of(built.notes)
    print_notes(out, "Note", built.notes_on_records())
    plan, spec = built.plan, built.spec()
    shares = {name: percent(float(share)) for name, share in zip(plan.names, plan.targets, strict=True)}
    notes = {
        name: f"{source.provenance}, {source.num_records:,} records of "
        + ", ".join(f"{leaf} {part}" for leaf, part in source.spec.items())
        for name, source in built.sources.items()
    }
    notes["mix"] = f"{config.mix.order} by {config.mix.granularity}, until {config.mix.stop}: " + ", ".join(
        f"{name} {share}" for name, share in shares.items()
    )
    notes["batch"] = f"{config.batch_size} × " + ", ".join(f"{leaf} {part}" for leaf, part in spec.items())
    out.print(built.graph.tree(notes))
    ends = {([*built.graph.chain(name)] or [built.graph.nodes[name]])[-1].name: share for name, share in shares.items()}
    write_text(directory / "graph.mmd", built.graph.mermaid(notes, ends))
    report = report_of_whole_mix(built, spec)
    out.print(f"Diagram: {directory / 'graph.mmd'}\nReport: {write_report(directory, report)}")
    return report
