"""Makes HTML and plots from the files of run folders; nothing is trained or measured again."""
