"""Studies and their images: from the files of a data set to the batches that a network takes."""
