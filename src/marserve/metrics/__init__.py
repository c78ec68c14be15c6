"""What is counted, under which names, and how it is written out."""
