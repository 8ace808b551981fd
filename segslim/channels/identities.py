"""Channel ids: one fresh integer for every position on every parameter's axis, united where positions must live and
die together.
"""

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]

#: The id of everything that must stay. A class that contains it is pinned.
PINNED = 0
#: What a tensor without prunable channels carries; it broadcasts to any shape.
NONE: Ids = np.zeros((), np.int64)


class Identities:
    """Hands out ids, collects the pairs that must be equal, and at the end tells which class each id is in."""

    def __init__(self) -> None:
        self.count = 1
        self._left: list[Ids] = []
        self._right: list[Ids] = []

    def fresh(self, size: int) -> Ids:
        self.count += size
        return np.arange(self.count - size, self.count)

    def unite(self, left: Ids, right: Ids) -> None:
        """Unites two id arrays, broadcast against each other, one by one."""
        left, right = np.broadcast_arrays(left, right)
        self._left.append(left.ravel())
        self._right.append(right.ravel())

    def pin(self, ids: Ids) -> None:
        self.unite(ids, NONE)

    def classes(self) -> Ids:
        """The class of every id: the least id that it is united with, hence 0 for all that are pinned."""
        label = np.arange(self.count)
        left, right = (np.concatenate([NONE.ravel(), *side]) for side in (self._left, self._right))
        while True:
            least = np.minimum(label[left], label[right])
            if np.array_equal(label[left], label[right]):
                return label
            np.minimum.at(label, label[left], least)
            np.minimum.at(label, label[right], least)
            label = _roots(label)


def _roots(label: Ids) -> Ids:
    """Follows every label to the root of its tree."""
    while not np.array_equal(label, label[label]):
        label = label[label]
    return label
