"""Figures: functions that return a `matplotlib.figure.Figure`, drawn without a screen."""

from mmkeras.plots.figures import confusion, explanation, grid, history, overlay, scatter, table

__all__ = ["confusion", "explanation", "grid", "history", "overlay", "scatter", "table"]
