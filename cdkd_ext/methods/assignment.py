"""The cheapest one-to-one assignment of rows to columns, for many cost matrices at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.floating[Any]]


def assign(costs: Floats) -> Integers:
    """Columns of the rows, none twice, with the least sum of costs (the Hungarian method, by shortest paths).

    All matrices take each step together: numpy's overhead is paid once for the batch.

    Args:
        costs: (N, R, C) with R at most C. What is not finite is as dear as anything can be.

    Returns:
        (N, R) int64.

    Example:
        >>> import numpy as np
        >>> from cdkd_ext.methods.assignment import assign
        >>> assign(np.array([[[4.0, 1.0, 3.0], [2.0, 0.0, 5.0]]]))
        array([[1, 0]])
    """
    count, rows, _ = costs.shape
    search = _Search(np.nan_to_num(costs.astype(np.float64), nan=1e30, posinf=1e30, neginf=-1e30))
    for row in range(1, rows + 1):
        search.add(row)
    result = np.zeros((count, rows + 1), np.int64)
    matrix, column = np.nonzero(search.row_of[:, 1:])
    result[matrix, search.row_of[matrix, column + 1]] = column
    return result[:, 1:]


class _Search:
    """Rows and columns count from 1; column 0 is where a row waits for its place.

    Attributes:
        row_of: (N, C + 1), the row that has each column, 0 for none.
    """

    def __init__(self, costs: Floats) -> None:
        count, rows, columns = costs.shape
        self._costs = costs
        self._row_price = np.zeros((count, rows + 1))
        self._column_price = np.zeros((count, columns + 1))
        self.row_of: Integers = np.zeros((count, columns + 1), np.int64)

    def add(self, row: int) -> None:
        """Give a row a column, and other rows other columns where that is cheaper."""
        self.row_of[:, 0] = row
        column, before = self._shortest_paths()
        waiting = np.flatnonzero(column)
        while waiting.size:
            at = column[waiting]
            previous = before[waiting, at]
            self.row_of[waiting, at] = self.row_of[waiting, previous]
            column[waiting] = previous
            waiting = waiting[previous != 0]

    def _shortest_paths(self) -> tuple[Integers, Integers]:
        """The free column that each matrix reaches, and the column before each on the way."""
        count, width = self.row_of.shape
        distance = np.full((count, width), np.inf)
        visited = np.zeros((count, width), bool)
        before: Integers = np.zeros((count, width), np.int64)
        column: Integers = np.zeros(count, np.int64)
        searching = np.arange(count)
        while searching.size:
            at = column[searching]
            visited[searching, at] = True
            column[searching] = self._step(searching, at, distance, visited, before)
            searching = searching[self.row_of[searching, column[searching]] != 0]
        return column, before

    def _step(
        self,
        chosen: Integers,
        at: Integers,
        distance: Floats,
        visited: npt.NDArray[np.bool_],
        before: Integers,
    ) -> Integers:
        """Look from a column's row at all others and go to the nearest; prices keep distances from zero."""
        row = self.row_of[chosen, at]
        reached = self._costs[chosen, row - 1] - self._row_price[chosen, row][:, None]
        reached -= self._column_price[chosen, 1:]
        seen, known = visited[chosen], distance[chosen]
        nearer = ~seen[:, 1:] & (reached < known[:, 1:])
        known[:, 1:] = np.where(nearer, reached, known[:, 1:])
        before[chosen, 1:] = np.where(nearer, at[:, None], before[chosen, 1:])
        open_ones = np.where(seen, np.inf, known)
        nearest: Integers = open_ones.argmin(1)
        step = open_ones[np.arange(len(chosen)), nearest][:, None]
        # of the columns that were visited each has another row, so none is written twice
        self._row_price[chosen[:, None], self.row_of[chosen]] += np.where(seen, step, 0)
        self._column_price[chosen] -= np.where(seen, step, 0)
        distance[chosen] = np.where(seen, known, known - step)
        return nearest
