"""Files become a `Dataset`: inputs, labels in compressed sparse rows, and the names of the labels."""
