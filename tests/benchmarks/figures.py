"""The arithmetic of the comparison and its table: medians, spreads, ratios, promises. Pure: numbers in, text out.

Knows the rows as data. Must not know where the numbers come from.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence

from rows import BASE, Figure, Row

Rounds = Sequence[float | None]  # a figure of one peer, round by round; None where it wasn't measured
Results = Mapping[tuple[str, str, str], Rounds]  # (row, figure, peer) to its rounds
NOTHING = "·"


def median(rounds: Rounds) -> float | None:
    """Return the median of the rounds that were measured, None if there is none."""
    values = [value for value in rounds if value is not None]
    return statistics.median(values) if values else None


def spread(rounds: Rounds) -> float | None:
    """Return half the distance from the least to the greatest, as a share of the median; None if that says nothing."""
    values = [value for value in rounds if value is not None]
    middle = median(rounds)
    if len(values) < 2 or not middle:
        return None
    return (max(values) - min(values)) / 2 / abs(middle)


def ratio(rounds: Rounds, base: Rounds) -> float | None:
    """Return the median of the ratios to the base, each taken within one round, where both ran seconds apart."""
    return median([a / b for a, b in zip(rounds, base, strict=False) if a is not None and b])


def show(value: float | None, scale: float = 1.0) -> str:
    """Return a number with three digits that count, or a dot for none."""
    if value is None:
        return NOTHING
    value *= scale
    size = abs(value)
    return f"{value:,.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}"


def table(rows: Iterable[Row], peers: Sequence[str], results: Results) -> str:
    """Return the rows side by side: for each figure the peers' medians and spreads, and beneath them the ratios."""
    wide = max([len(peer) for peer in peers] + [13]) + 2
    lines = [f"{'':34}" + "".join(f"{peer:>{wide}}" for peer in peers)]
    for row in rows:
        measured = [figure for figure in row.figures if any((row.name, figure.key, peer) in results for peer in peers)]
        for figure in measured:
            lines += _lines(row, figure, peers, results, wide)
        if not measured:
            lines.append(f"{row.name:17}nobody could be measured")
    return "\n".join(lines)


def _lines(row: Row, figure: Figure, peers: Sequence[str], results: Results, wide: int) -> list[str]:
    rounds = {peer: results.get((row.name, figure.key, peer), ()) for peer in peers}
    cells = [_cell(rounds[peer], figure) for peer in peers]
    lines = [f"{row.name:17}{figure.unit:17}" + "".join(f"{cell:>{wide}}" for cell in cells)]
    if figure.has_ratio and rounds.get(BASE):
        ratios = [show(ratio(rounds[peer], rounds[BASE])) for peer in peers]
        lines.append(f"{'':17}{f'to {BASE}':17}" + "".join(f"{cell:>{wide}}" for cell in ratios))
    return lines


def _cell(rounds: Rounds, figure: Figure) -> str:
    around = spread(rounds) if figure.has_ratio else None
    return show(median(rounds), figure.scale) + (f" ±{around:3.0%}" if around is not None else "")


def judge(rows: Iterable[Row], results: Results, peer: str = "greenswitch") -> list[tuple[str, bool]]:
    """Return for each promise of these rows a sentence and whether it is kept; what wasn't measured is not kept."""
    verdicts = []
    for row in rows:
        for figure in row.figures:
            if figure.promise is not None:
                verdicts.append(_verdict(row, figure, results, peer))
    return verdicts


def _verdict(row: Row, figure: Figure, results: Results, peer: str) -> tuple[str, bool]:
    promise = figure.promise
    assert promise is not None
    rounds = results.get((row.name, figure.key, peer), ())
    if promise.of == "ratio":
        value, scale, unit = ratio(rounds, results.get((row.name, figure.key, BASE), ())), 1.0, f"of {BASE}'s"
    else:
        value, scale, unit = median(rounds), figure.scale, figure.unit
    if value is None:
        return f"{row.name}: not measured, promised ≤ {promise.limit:g} {unit}", False
    kept = value * scale <= promise.limit
    word = "kept" if kept else "MISSED"
    return f"{row.name}: {show(value, scale)} {unit}, promised ≤ {promise.limit:g}: {word}", kept


def as_data(rows: Iterable[Row], peers: Sequence[str], results: Results) -> list[dict[str, object]]:
    """Return everything as JSON's data: a record for each row, figure and peer, in seconds, bytes or as it is."""
    records: list[dict[str, object]] = []
    for row in rows:
        for figure in row.figures:
            base = results.get((row.name, figure.key, BASE), ())
            for peer in peers:
                rounds = results.get((row.name, figure.key, peer))
                if rounds is not None:
                    records.append({
                        "row": row.name, "figure": figure.key, "unit": figure.unit, "scale": figure.scale, "peer": peer,
                        "rounds": list(rounds), "median": median(rounds), "spread": spread(rounds),
                        "best": min((value for value in rounds if value is not None), default=None),
                        "ratio": ratio(rounds, base) if figure.has_ratio else None,
                    })
    return records
