"""The sign-in service: login.microsoftonline.com for one tenant, one application and one user.

`tokens` makes and reads tokens, `flows` holds the ways to one, `routes` the calls.
"""
