"""Exit codes of worker processes, told apart in the server's log."""

#: Told to stop; the server is gone; the service did not load; another rank of the same worker is gone.
EXIT_OK, EXIT_LINK_LOST, EXIT_LOAD_FAILED, EXIT_RANK_LOST = 0, 3, 4, 5
