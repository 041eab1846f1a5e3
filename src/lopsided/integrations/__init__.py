"""What the trainers of other libraries call: a module for each library."""
