"""The messages between an old frontend and its workers."""
