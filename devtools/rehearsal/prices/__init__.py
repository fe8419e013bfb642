"""The retail price list: what an hour of each VM size costs, in the real list's format, with example prices."""
