"""Results of the benchmark as a printed table and as a picture."""

from .._files import save_picture
from .cases import AXES


def report(results, varying=(), write=print):
    """Write a table with a line for each result as soon as it is there, and return the results as a list.

    `varying` names the axes that get a column.
    """
    done, columns = [], None
    for result in results:
        done.append(result)
        seconds = result.seconds()
        axes = {axis: getattr(result.case, axis) for axis in varying if axis != "rule"}
        cells = {"rule": f"{result.case.rule:<14}"} | axes | {
            "µs/step": f"{seconds * 1e6:,.1f}", "ns/row": f"{seconds / result.touched * 1e9:,.1f}",
            "GB/s": f"{result.bytes / seconds / 1e9:.1f}",
            "of ref": f"{result.ratio('reference'):.2f}" if "reference" in result.times else "-",
            "check": f"{(result.ratio('check') - 1) * 100:+.0f} %", "extra MB": f"{result.extra_memory / 1e6:.3f}"}
        cells |= {name: f"{result.ratio(name):.3g}x" for name in result.peers}
        if columns != list(cells):
            columns = list(cells)
            write("  ".join(f"{name:>{_width(name)}}" for name in columns))
        write("  ".join(f"{cells[name]!s:>{_width(name)}}" for name in columns))
    return done


MEASURES = ("seconds_per_step", "bytes_per_step", "seconds_of_reference", "seconds_with_check", "extra_bytes", "peers")


def numbers(result):
    """Return the axes of a result and its MEASURES, for programs; the peers as a dict of seconds."""
    seconds = {name: result.seconds(name) for name in result.times}
    return [*(getattr(result.case, axis) for axis in AXES), seconds["step"], result.bytes, seconds.get("reference"),
            seconds.get("check"), result.extra_memory, {name: seconds[name] for name in result.peers}]


def _width(name):
    return max(len(name), {"rule": 14, "table": 8, "isa": 8, "µs/step": 9}.get(name, 7))


_LABELS = {"rows": "rows drawn per step", "table": "rows of the table", "dim": "length of a row"}


def draw(results, path):
    """Draw a picture of results.

    If one number varies, the picture shows the time per step over this number. Else it shows a bar for each result: the
    share of the reference loop, or the time per step if a result has no reference.
    """
    from matplotlib.figure import Figure

    varying = [axis for axis in AXES if len({getattr(r.case, axis) for r in results}) > 1]
    figure = Figure(figsize=(7.2, 4.5), layout="constrained")
    axes = figure.add_subplot()
    if len(varying) == 1 and not isinstance(getattr(results[0].case, varying[0]), str):
        axis = varying[0]
        results = sorted(results, key=lambda r: getattr(r.case, axis))
        for name in dict.fromkeys(name for r in results for name in ("step", "reference", *r.peers) if name in r.times):
            have = [r for r in results if name in r.times]
            x, y = [getattr(r.case, axis) for r in have], [r.seconds(name) * 1e3 for r in have]
            style = {"linestyle": "--", "color": "0.5"} if name == "reference" else {}
            label = {"step": f"sparseopt {results[0].case.rule}", "reference": "reference loop"}.get(name, name)
            axes.plot(x, y, label=label, marker="o", markersize=4, **style)
        axes.set(xscale="log" if getattr(results[0].case, axis) > 0 else "linear", yscale="log",
                 xlabel=_LABELS.get(axis, axis), ylabel="ms per step")
        axes.legend()
    else:
        labels = [" ".join(str(getattr(r.case, axis)) for axis in varying) or r.case.rule for r in results]
        compared = all("reference" in r.times for r in results)
        bars = axes.barh(labels, [r.ratio("reference") if compared else r.seconds() * 1e3 for r in results])
        axes.bar_label(bars, fmt="%.2f", padding=3)
        if compared:
            axes.axvline(1, color="0.5", linestyle="--")
        axes.invert_yaxis()
        axes.margins(x=0.15)
        axes.set(xlabel="share of the reference loop" if compared else "ms per step")
    fixed = {axis: getattr(results[0].case, axis) for axis in AXES if axis not in varying}
    axes.set_title(", ".join(f"{axis} {value:,}" if isinstance(value, int) else f"{axis} {value}"
                             for axis, value in fixed.items() if axis != "zipf" or value), fontsize=8)
    axes.grid(alpha=0.3)
    save_picture(figure, path)
