"""Jobs that wait, and the rule for who leaves when; no clock, no I/O."""
