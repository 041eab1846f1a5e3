"""What makes the losses fit into the trainers of other libraries: a module for each, and none imports its library."""
