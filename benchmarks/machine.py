"""What every benchmark shares: the machine by name, and results as JSON lines."""

import json
import os
import platform
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """The processor, its cores, and the versions that a timing depends on."""
    import torch

    from kimi_audio.checkpoint.kernels import quickest_float
    from kimi_audio.evaluation.evaluate import processor

    return {
        "cpu": processor(),
        "cores": os.cpu_count(),
        "vector": torch.backends.cpu.get_cpu_capability(),
        "quickest": str(quickest_float()).removeprefix("torch."),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def report(rows: list[dict[str, Any]], output: Path | None) -> None:
    """Print `rows` as JSON lines; with `output` write them there too, each with the machine."""
    for row in rows:
        print(json.dumps(row), flush=True)
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
        where = machine()
        output.write_text("".join(json.dumps({**row, "machine": where}) + "\n" for row in rows))
