"""Package an output for an archive: a BagIt bag with PREMIS events and C2PA signatures."""
