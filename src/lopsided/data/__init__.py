"""Files become a `Dataset`: inputs, labels in compressed sparse rows, and the names of the labels."""

BUILT_IN = "digits-grid"  # the name of the data that are made, not read
