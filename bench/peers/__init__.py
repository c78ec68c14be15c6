"""Other servers beside marserve: where each lives, how it is started, what it is asked, and what came out."""
