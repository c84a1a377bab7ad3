"""A bounded memory of what was used last."""

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Recent(Generic[Key, Value]):
    """A mapping that holds at most ``entries_max`` entries and forgets the one that was used longest ago."""

    def __init__(self, entries_max: int) -> None:
        self._entries_max = entries_max
        self._entries: OrderedDict[Key, Value] = OrderedDict()

    def get(self, key: Key) -> Value | None:
        """Return the value, which counts as a use, or None."""
        value = self._entries.get(key)
        if value is not None:
            self._entries.move_to_end(key)
        return value

    def put(self, key: Key, value: Value) -> None:
        """Remember a value, in place of the one that the key had."""
        self._entries[key] = value
        self._entries.move_to_end(key)
        if len(self._entries) > self._entries_max:
            self._entries.popitem(last=False)

    def forget(self, key: Key) -> None:
        """Drop an entry, if it is there."""
        self._entries.pop(key, None)

    def __iter__(self) -> Iterator[Key]:
        return iter(tuple(self._entries))

    def __len__(self) -> int:
        return len(self._entries)
