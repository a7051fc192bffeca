"""Write kept and repaired pictures of a cleaned dataset as tar shards."""

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
    """Row with `path` and `pictures` (rows of a manifest as JSON) → row with `path` and `undelivered`.

    undelivered: the reason why the shard was not written, or empty. `sample` of each picture is its member's name. A
    shard with a picture whose bytes differ from the manifest is not written.
    """

    # of the dataset, with the repaired pictures and the shards
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
        """The bytes of the kept or repaired picture. Raises StoreError."""
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
                f"{picture['name']} has changed since the manifest was written; clean the dataset again"
            )
        return read
