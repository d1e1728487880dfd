"""One reader per data set, in the file called like it: from its files as they come to a `SourceTable`."""
