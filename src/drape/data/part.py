"""Some of the pairs of a reader, as a reader."""

from collections.abc import Sequence

from drape.data.compact import Compact
from drape.data.loader import Reader
from drape.data.sample import TryOnSample


class Part:
    """Some of the pairs of a reader, in the order given."""

    def __init__(self, reader: Reader, indices: Sequence[int]) -> None:
        self.reader, self.indices = reader, list(indices)
        self.fields: tuple[str, ...] = reader.fields
        self.ids = [reader.ids[index] for index in self.indices]

    @property
    def place(self) -> str:
        return self.reader.place

    def fingerprint(self) -> str:
        return self.reader.fingerprint()

    @property
    def settings(self) -> dict[str, object]:
        return {**self.reader.settings, "indices": self.indices}

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> TryOnSample:
        return self.reader[self.indices[index]]

    def by_id(self, person_id: str) -> TryOnSample:
        """The first record of a person: of these pairs, else of the whole reader."""
        own = next((index for index, (person, _) in enumerate(self.ids) if person == person_id), None)
        return self.reader.by_id(person_id) if own is None else self[own]

    def compact(self, index: int) -> Compact:
        return self.reader.compact(self.indices[index])
