"""Write pictures of a cleaned dataset, kept or repaired, as a tar shard of their own."""

import hashlib
import io
import json
import tarfile
from dataclasses import dataclass
from typing import Any

from pipeline.io import store
from pipeline.io.errors import message
from pipeline.io.names import unescape_surrogates
from pipeline.io.readers import Read, read_unit
from pipeline.io.units import Address, Unit
from pipeline.records.rows import Row


@dataclass(frozen=True)
class BundlePictures:
    """Row with `path` and `pictures` (rows of a manifest as JSON) → `path`, and why it is `undelivered`, or empty.

    Each picture also has the name of its member as `sample`.

    A picture whose bytes are not those of the manifest is not written, and neither is its shard.
    """

    # of the dataset, where repaired pictures and the shards lie
    output: str
    image_column: str

    def __call__(self, row: Row) -> Row:
        buffer = io.BytesIO()
        try:
            with tarfile.open(fileobj=buffer, mode="w") as out:
                for picture in json.loads(row["pictures"]):
                    data = self._bytes(picture)
                    info = tarfile.TarInfo(picture["sample"])
                    info.size = len(data)
                    out.addfile(info, io.BytesIO(data))
            store.write_bytes(store.join(self.output, row["path"]), buffer.getvalue())
        except store.StoreError as error:
            return {"path": row["path"], "undelivered": message(error)}
        return {"path": row["path"], "undelivered": ""}

    def _bytes(self, picture: dict[str, Any]) -> bytes:
        """The picture as it is to be used. Raises StoreError."""
        read: Read
        if picture["repaired"]:
            read, wanted = (
                store.read_bytes(store.join(self.output, picture["repaired"])),
                picture["repaired_sha256"],
            )
        else:
            uri = unescape_surrogates(picture["uri"])
            address = Address(picture["member"], uri, picture["offset"], picture["length"])
            ((_, read),) = read_unit(Unit("bundle", "folder", 0, True, (address,)), self.image_column)
            wanted = picture["sha256"]
        if isinstance(read, store.StoreError):
            raise read
        if hashlib.sha256(read).hexdigest() != wanted:
            raise store.StoreError(
                f"{picture['name']} is no longer the picture of the manifest; clean the dataset again"
            )
        return read
