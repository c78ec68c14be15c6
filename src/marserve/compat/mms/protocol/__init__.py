"""The messages between Multi Model Server's front end and its workers."""
