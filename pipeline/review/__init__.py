"""A person reviews the faces of an output: the page of any output, its server, signed addresses."""
