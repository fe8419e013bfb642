"""The endpoints' own hosts: requests let in by key, led to a deployment by traffic or by header, answered there."""
