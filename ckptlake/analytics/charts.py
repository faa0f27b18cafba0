"""Charts as data: Vega-Lite specifications, which Jupyter draws and any renderer of that grammar can."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_SCHEMA = "https://vega.github.io/schema/vega-lite/v5.json"
_WIDTH, _HEIGHT = 520, 300
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Chart:
    """One chart.

    Attributes:
        spec: its Vega-Lite specification, plain JSON values with the data in it.
    """

    spec: Mapping[str, Any]

    def _repr_mimebundle_(self, **_: object) -> dict[str, Any]:
        return {"application/vnd.vegalite.v5+json": dict(self.spec), "text/plain": f"<Chart {self.spec['title']!r}>"}


@dataclass(frozen=True, slots=True)
class Axis:
    """A column on an axis or as colour: its title, whether it is logarithmic, whether it must show zero."""

    column: str
    title: str
    log: bool = False
    zero: bool = False

    def encoding(self) -> dict[str, Any]:
        scale: dict[str, Any] = {"zero": self.zero}
        if self.log:
            scale = {"type": "log"}
        return {"field": self.column, "type": "quantitative", "title": self.title, "scale": scale}


def interval_chart(
    title: str, rows: Iterable[Row], *, label: str, value: Axis, low: str, high: str, reference: float | None = None
) -> Chart:
    """Return estimates as dots with their intervals, one label a line, and a rule at a value to compare with."""
    y = {"field": label, "type": "nominal", "title": None, "sort": None, "axis": {"labelLimit": 260}}
    x = value.encoding()
    layers: list[dict[str, Any]] = [
        {
            "mark": {"type": "rule", "strokeWidth": 2},
            "encoding": {"x": {**x, "field": low}, "x2": {"field": high}, "y": y},
        },
        {"mark": {"type": "point", "filled": True, "size": 70, "tooltip": True}, "encoding": {"x": x, "y": y}},
    ]
    if reference is not None:
        layers.append(_rule("x", reference))
    return _chart(title, rows, {"layer": layers, "height": {"step": 22}})


def line_chart(
    title: str,
    rows: Iterable[Row],
    *,
    x: Axis,
    y: Axis,
    color: str | None = None,
    low: str | None = None,
    high: str | None = None,
    marks: Sequence[float] = (),
    levels: Sequence[float] = (),
) -> Chart:
    """Return curves, one a value of `color`, with bands between two columns and rules across x and y."""
    told = {} if color is None else {"color": {"field": color, "type": "nominal", "title": color}}
    layers: list[dict[str, Any]] = []
    if low is not None and high is not None:
        band = {"x": x.encoding(), "y": {**y.encoding(), "field": low}, "y2": {"field": high}, **told}
        layers.append({"mark": {"type": "area", "opacity": 0.2}, "encoding": band})
    layers.append(
        {"mark": {"type": "line", "tooltip": True}, "encoding": {"x": x.encoding(), "y": y.encoding(), **told}}
    )
    layers += [_rule("x", mark) for mark in marks]
    layers += [_rule("y", level) for level in levels]
    return _chart(title, rows, {"layer": layers, "height": _HEIGHT})


def point_chart(title: str, rows: Iterable[Row], *, x: Axis, y: Axis, color: str | None = None) -> Chart:
    """Return points, coloured by the values of `color`."""
    told = {} if color is None else {"color": {"field": color, "type": "nominal", "title": color}}
    encoding = {"x": x.encoding(), "y": y.encoding(), **told}
    mark = {"type": "point", "filled": True, "size": 60, "tooltip": True}
    return _chart(title, rows, {"mark": mark, "encoding": encoding, "height": _HEIGHT})


def bar_chart(
    title: str, rows: Iterable[Row], *, label: str, value: Axis, low: str | None = None, high: str | None = None
) -> Chart:
    """Return one bar a label, with its interval where `low` and `high` name it."""
    y = {"field": label, "type": "nominal", "title": None, "sort": None, "axis": {"labelLimit": 260}}
    x = {**value.encoding(), "scale": {"zero": True}}
    layers: list[dict[str, Any]] = [{"mark": {"type": "bar", "tooltip": True}, "encoding": {"x": x, "y": y}}]
    if low is not None and high is not None:
        layers.append({"mark": {"type": "rule"}, "encoding": {"x": {**x, "field": low}, "x2": {"field": high}, "y": y}})
    return _chart(title, rows, {"layer": layers, "height": {"step": 22}})


def heat_chart(title: str, rows: Iterable[Row], *, x: str, y: str, value: Axis) -> Chart:
    """Return a matrix of coloured cells with their values written in them."""
    place = {
        "x": {"field": x, "type": "nominal", "title": None, "sort": None, "axis": {"labelAngle": -40}},
        "y": {"field": y, "type": "nominal", "title": None, "sort": None},
    }
    color = {"field": value.column, "type": "quantitative", "title": value.title, "scale": {"scheme": "blueorange"}}
    layers = [
        {"mark": {"type": "rect", "tooltip": True}, "encoding": {**place, "color": color}},
        {
            "mark": {"type": "text"},
            "encoding": {**place, "text": {"field": value.column, "type": "quantitative", "format": ".2f"}},
        },
    ]
    return _chart(title, rows, {"layer": layers, "height": {"step": 34}, "width": {"step": 60}})


def _rule(axis: str, value: float) -> dict[str, Any]:
    return {"mark": {"type": "rule", "strokeDash": [4, 4], "color": "#888"}, "encoding": {axis: {"datum": value}}}


def _chart(title: str, rows: Iterable[Row], drawing: Mapping[str, Any]) -> Chart:
    data = [{name: _plain(value) for name, value in row.items()} for row in rows]
    return Chart({"$schema": _SCHEMA, "title": title, "width": _WIDTH, **drawing, "data": {"values": data}})


def _plain(value: Any) -> Any:
    """Return a value as JSON can hold it: what is not finite has no place on an axis."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
