"""Plots the results of the deployment benchmark: seconds by tool and number of hosts, with memory below."""

import json
from collections.abc import Sequence
from pathlib import Path

# In drawing order; the same colour in every plot.
COLOURS = {"ours": "#1b6ca8", "floor": "#9aa5b1", "loop": "#d1495b", "deploy-rs": "#edae49", "ansible": "#5f8f5f"}
NAMES = {"ours": "nixherd", "floor": "floor (raw nix copy)", "loop": "loop of nixos-rebuild's steps"}


def draw(directory: Path, counts: Sequence[int]) -> None:
    """Draw `deploy.svg` from `deploy-COUNT-SCENARIO.json` in the directory."""
    try:
        import matplotlib
    except ImportError:
        print("deploy: matplotlib is not installed (pip install -e '.[bench]'): no picture", flush=True)
        return
    matplotlib.use("svg")
    # A small file, identical for identical figures.
    matplotlib.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "deploy"}
    from matplotlib import pyplot

    scenarios = ("changed", "unchanged")
    figure, axes = pyplot.subplots(2, len(scenarios), figsize=(10, 6.5), sharex=True)
    for column, scenario in enumerate(scenarios):
        measurements = [json.loads((directory / f"deploy-{count}-{scenario}.json").read_text()) for count in counts]
        for row, (what, unit) in enumerate((("seconds", "seconds (median)"), ("mib", "MiB at most"))):
            axis = axes[row][column]
            names = [name for name in COLOURS if name in measurements[0][what]]
            width = 0.8 / len(names)
            for at, name in enumerate(names):
                places = [index + (at - (len(names) - 1) / 2) * width for index in range(len(counts))]
                heights = [each[what][name] for each in measurements]
                axis.bar(places, heights, width, color=COLOURS[name], label=NAMES.get(name, name))
            axis.set_xticks(range(len(counts)), [f"{count} host{'s' if count > 1 else ''}" for count in counts])
            axis.set_ylabel(unit)
            axis.spines[["top", "right"]].set_visible(False)
        axes[0][column].set_title(scenario)
    axes[0][0].legend(frameon=False)
    figure.suptitle("nixherd deploy beside others, on light hosts of the lab")
    figure.tight_layout()
    figure.savefig(directory / "deploy.svg", metadata={"Date": None})
